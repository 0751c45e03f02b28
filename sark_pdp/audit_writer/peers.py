"""Who calls: what a client's certificate covers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio


def names_of(context: "grpc.aio.ServicerContext[Any, Any]") -> list[str]:
    """The subject alternative names of the client's certificate; none without one."""
    properties: Mapping[str, Any] = context.auth_context()
    names: Sequence[bytes] = properties.get("x509_subject_alternative_name", ())
    return [name.decode(errors="replace") for name in names]


def covers(names: Sequence[str], source: str) -> bool:
    """Whether one of the names is that of the process that a source, `<name>/<boot id>`, is of.

    `*.pods.example` covers each name with one more label, as in certificates.
    """
    process = source.rpartition("/")[0]
    _, dot, above = process.partition(".")
    return process in names or (bool(dot) and f"*.{above}" in names)


def is_one_of(names: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether the certificate has an allowed name."""
    return any(name in allowed for name in names)
