"""What a pod says of its sidecar: the annotations `sark.io/…`."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.errors import InjectionError
from sark_pdp.injector.template import Resources
from sark_pdp.quantities import format_memory, parse_cpu, parse_memory

PREFIX: Final = "sark.io/"
INJECT: Final = "inject"

_RESOURCES: Final = {
    "cpu-request": parse_cpu,
    "cpu-limit": parse_cpu,
    "memory-request": parse_memory,
    "memory-limit": parse_memory,
}
_CHOICES: Final = {"log-level": ("debug", "info", "warning", "error"), "audit-on-full": ("drop", "deny")}
_VARIABLES: Final = {
    "policy": "SARK_PDP_POLICY__ENTRYPOINT",
    "ext-authz-policy": "SARK_PDP_POLICY__EXT_AUTHZ_ENTRYPOINT",
    "log-level": "SARK_PDP_LOG__LEVEL",
    "audit-on-full": "SARK_PDP_AUDIT__ON_FULL",
}
_PORTS: Final = {"metrics-port": 1024, "grpc-port": 1024, "http-port": 1024, "envoy-port": 1024, "app-port": 1}
"""With the lowest one: what is injected may not listen below 1024."""
_OTHERS: Final = (INJECT, "containers", "spool-size", "envoy", "envoy-body")

NAMES: Final = tuple(sorted({*_RESOURCES, *_VARIABLES, *_PORTS, *_OTHERS}))
"""All annotations, without the prefix."""

_ENTRYPOINT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_SPOOL: Final = (2**20, 2**40)
_BODY: Final = (2**10, 2**20)
"""Bytes: the least and the most."""


class Wishes(Struct, frozen=True, kw_only=True):
    """What one pod wants; None is as the template has it."""

    variables: Mapping[str, str]
    resources: Resources
    spool_size: str | None = None
    metrics_port: int | None = None
    grpc_port: int | None = None
    """Where the sidecar listens on loopback, besides the socket; None: nowhere."""
    http_port: int | None = None
    """The same for HTTP/JSON, which has no socket."""
    containers: frozenset[str] | None = None
    """Those that are given the socket; None: the app's, and sidecars."""
    envoy: bool = False
    envoy_body: int = 65_536
    """Bytes of a request's body that Envoy keeps for the sidecar; 0: it does not wait for bodies."""
    envoy_port: int | None = None
    app_port: int | None = None


def is_wanted(annotations: Mapping[str, str], *, otherwise: bool) -> bool:
    """Whether the pod is to have a sidecar; `otherwise` where it does not say. Raises InjectionError."""
    value = annotations.get(PREFIX + INJECT)
    return otherwise if value is None else _boolean(INJECT, value)


def read_wishes(annotations: Mapping[str, str], defaults: Resources) -> Wishes:
    """Raises InjectionError, which names the annotation, its value and what is expected."""
    given = {key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)}
    for name in given:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"expected one of {', '.join(NAMES)}"
            raise InjectionError(f"annotation {PREFIX}{_shown(name)}: there is no such annotation; {hint}")
    ports = {name: _port(name, given[name]) for name in _PORTS if name in given}
    if "spool-size" in given:
        _size("spool-size", given["spool-size"], _SPOOL)
    body = given.get("envoy-body", "64Ki")
    return Wishes(
        variables={_VARIABLES[name]: _checked(name, given[name]) for name in _VARIABLES if name in given},
        resources=_resources(given, defaults),
        spool_size=given.get("spool-size"),
        metrics_port=ports.get("metrics-port"),
        grpc_port=ports.get("grpc-port"),
        http_port=ports.get("http-port"),
        containers=_containers(given),
        envoy=_boolean("envoy", given.get("envoy", "false")),
        envoy_body=0 if body == "0" else _size("envoy-body", body, _BODY),
        envoy_port=ports.get("envoy-port"),
        app_port=ports.get("app-port"),
    )


def _boolean(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise _wrong(name, value, 'is neither "true" nor "false"')
    return value == "true"


def _checked(name: str, value: str) -> str:
    """A value that becomes a setting of the sidecar."""
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise _wrong(name, value, f"is unknown; expected {', '.join(choices[:-1])} or {choices[-1]}")
    if choices is None and not _ENTRYPOINT.fullmatch(value):
        raise _wrong(name, value, "is no entrypoint; expected names with / between them, as in sark/mcp/decision")
    return value


def _port(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not _PORTS[name] <= int(value) <= 65535:
        raise _wrong(name, value, f"is no port that can be used; expected {_PORTS[name]} to 65535")
    return int(value)


def _size(name: str, value: str, bounds: tuple[int, int]) -> int:
    least, most = bounds
    try:
        size = parse_memory(value)
    except ValueError as error:
        raise _wrong(name, value, str(error)) from None
    if not least <= size <= most:
        expected = f"{format_memory(least)} to {format_memory(most)}"
        raise _wrong(name, value, f"is out of range; expected {expected}{', or 0' if name == 'envoy-body' else ''}")
    return size


def _containers(given: Mapping[str, str]) -> frozenset[str] | None:
    if "containers" not in given:
        return None
    names = [name.strip() for name in given["containers"].split(",")]
    if not all(names):
        raise _wrong("containers", given["containers"], "has an empty name; expected names with commas between them")
    return frozenset(names)


def _resources(given: Mapping[str, str], defaults: Resources) -> Resources:
    for name in _RESOURCES.keys() & given.keys():
        try:
            _RESOURCES[name](given[name])
        except ValueError as error:
            raise _wrong(name, given[name], str(error)) from None
    wanted = {name.replace("-", "_"): given[name] for name in _RESOURCES if name in given}
    resources = replace(defaults, **wanted)
    for kind, parse in (("cpu", parse_cpu), ("memory", parse_memory)):
        request, limit = getattr(resources, f"{kind}_request"), getattr(resources, f"{kind}_limit")
        if limit is not None and parse(limit) < parse(request):
            raise InjectionError(
                f"annotations {PREFIX}{kind}-request and {PREFIX}{kind}-limit: the sidecar would request {request} and "
                f"be limited to {limit}; set both, the limit not below the request"
            )
    return resources


def _wrong(name: str, value: str, problem: str) -> InjectionError:
    return InjectionError(f'annotation {PREFIX}{name}: "{_shown(value)}" {problem}')


def _shown(text: str) -> str:
    """On one line, and not longer than a line: it goes into logs, events and terminals."""
    printable = "".join(each if each.isprintable() else "�" for each in text)
    return printable if len(printable) <= 80 else f"{printable[:80]}…"
