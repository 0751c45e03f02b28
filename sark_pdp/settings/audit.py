"""The settings of the audit trail."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from msgspec import Meta, Struct

from sark_pdp.addresses import Address
from sark_pdp.settings.units import Bytes

_INPUT: Final = "input"
_NAMED: Final = (
    *("user_id", "user_email", "server_id", "tool_name", "ip_address", "user_agent", "request_id"),
    *("reason", "peer"),
)


class MaskPath(Struct, frozen=True):
    """A place in an event, written as a JSON pointer (RFC 6901)."""

    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with what is wrong with it."""
        if not text.startswith("/"):
            raise ValueError("does not begin with /")
        segments = tuple(each.replace("~1", "/").replace("~0", "~") for each in text[1:].split("/"))
        inside = segments[0] == _INPUT and len(segments) > 1 and all(segments)
        if inside or (segments[0] in _NAMED and len(segments) == 1):
            return cls(segments)
        raise ValueError("names nothing that can be masked")

    def __str__(self) -> str:
        return "".join(f"/{each.replace('~', '~0').replace('/', '~1')}" for each in self.segments)


MASK_PATH_EXPECTED: Final = f"/input/…, where * is one level and ** any number of them, or one of /{', /'.join(_NAMED)}"


class MaskSettings(Struct, frozen=True, kw_only=True):
    """What becomes of one place of every event before it is written."""

    path: Annotated[MaskPath, Meta(description="The place.")]
    operation: Annotated[
        Literal["remove", "hash", "truncate"],
        Meta(description="`hash` needs `audit.mask_key_file`; `truncate` leaves the first `length` characters."),
    ] = "remove"
    length: Annotated[int, Meta(description="Characters that `truncate` leaves.", ge=0)] = 32


class AuditTlsSettings(Struct, frozen=True, kw_only=True):
    """TLS towards `audit.writer`."""

    ca_file: Annotated[
        Path | None, Meta(description="Authorities that sign the writer's certificate, PEM: turns TLS on.")
    ] = None
    cert_file: Annotated[
        Path | None,
        Meta(description="This process's certificate chain, PEM: what the writer knows `audit.source_name` by."),
    ] = None
    key_file: Annotated[Path | None, Meta(description="Its private key, PEM.")] = None
    server_name: Annotated[
        str | None, Meta(description="The name in the writer's certificate, where it is not that of the address.")
    ] = None
    insecure: Annotated[bool, Meta(description="Allows a writer outside loopback without TLS.")] = False


class AuditSettings(Struct, frozen=True, kw_only=True):
    """The record of every decision."""

    spool_dir: Annotated[
        Path,
        Meta(description="The folder that events are written to.", extra={"default": "`audit` in `state_dir`"}),
    ]
    spool_max_bytes: Annotated[
        Bytes,
        Meta(
            description="What the spool may take on disk: 1MiB or more, or 0, which turns the audit trail off: no"
            " decision is recorded then.",
            ge=0,
        ),
    ] = Bytes(2**30)
    writer: Annotated[
        tuple[Address, ...],
        Meta(
            description="The audit writers that events are shipped to; a name that stands for several addresses is"
            " several writers. Without one, events are kept in the spool."
        ),
    ] = ()
    on_full: Annotated[
        Literal["drop", "deny"],
        Meta(
            description="When the spool or its queue is full: `drop` answers and counts what was lost, `deny` denies,"
            " from the first event on that cannot be written."
        ),
    ] = "drop"
    mask: Annotated[
        tuple[MaskSettings, ...],
        Meta(description="What is masked in events besides secrets; docs/audit.md tells of both."),
    ] = ()
    mask_key_file: Annotated[
        Path | None, Meta(description="Key of the hashes that `audit.mask` asks for: 16 bytes or more.")
    ] = None
    chain_key_file: Annotated[
        Path | None,
        Meta(
            description="Key of the chain over the events. Without one, accidents are found but not deliberate changes."
        ),
    ] = None
    source_name: Annotated[
        str,
        Meta(
            description="The name of this process in its events: the pod or the host.",
            extra={"default": "the host's name"},
        ),
    ]
    tls: AuditTlsSettings = AuditTlsSettings()
