"""`sark.pdp.v1.Administration`: what this process serves, and what is wrong with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from sark_pdp._proto.admin_pb2 import (
    AuditTrail,
    Bundle,
    Cache,
    GetStatusRequest,
    GetStatusResponse,
    InvalidateRequest,
    InvalidateResponse,
    ReloadBundleRequest,
    ReloadBundleResponse,
)
from sark_pdp.audit.statistics import Statistics
from sark_pdp.cache import subjects
from sark_pdp.engine.policies import BundleState
from sark_pdp.errors import InvalidRequestError
from sark_pdp.interfaces import StoreStatistics
from sark_pdp.transport.handler import Metadata, Method
from sark_pdp.transport.health import Readiness
from sark_pdp.transport.method import NativeMethod, parsed

SERVICE: Final = "sark.pdp.v1.Administration"

_SINGLE: Final[Mapping[str, Callable[[str], str]]] = {
    "user_id": subjects.user,
    "server_id": subjects.server,
    "tool_id": subjects.tool,
    "policy": subjects.policy,
}

Invalidate = Callable[[Mapping[str, str], Sequence[str]], bool]
"""Called with what was said and the subjects that it comes to; tells whether every process hears of it."""


class Sources(Struct, frozen=True):
    """What a status is made of, asked each time."""

    readiness: Readiness
    bundles: Callable[[], Iterable[BundleState]]
    stores: Callable[[], Iterable[StoreStatistics]]
    audit: Callable[[], Statistics]
    warnings: Callable[[], Iterable[str]]
    """What is wrong with how it is configured."""


class GetStatus(NativeMethod):
    """The status now."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        del metadata
        parsed(GetStatusRequest, message)
        sources = self._sources
        bundles = tuple(sources.bundles())
        audit = sources.audit()
        return GetStatusResponse(
            serving=not sources.readiness.problem,
            bundles=[_told(state) for state in bundles],
            problems=[*_problems(sources.readiness, bundles, audit), *(f"{text}." for text in sources.warnings())],
            caches=[
                Cache(
                    name=s.name,
                    entries=s.entries,
                    capacity=s.capacity,
                    hits=s.hits,
                    misses=s.misses,
                    notes=[f"{note}." for note in s.notes],
                )
                for s in sources.stores()
            ],
            audit=AuditTrail(
                source=audit.source,
                sequence=audit.sequence,
                queued=audit.queued,
                spool_bytes=audit.spool_bytes,
                dropped=audit.dropped,
                ships=audit.ships,
                shipped=audit.shipped,
                lag_seconds=audit.lag_seconds,
            ),
        ).SerializeToString()


def _problems(readiness: Readiness, bundles: Iterable[BundleState], audit: Statistics) -> list[str]:
    """One sentence each; an operator reads them in this order."""
    problems = [f"Not serving: {readiness.problem}."] if readiness.problem else []
    problems += [f"Bundle {bundle.name} is not activated: {bundle.error}." for bundle in bundles if bundle.error]
    problems += [f"{problem}." for problem in (audit.problem, audit.shipping_problem) if problem]
    if audit.dropped:
        problems.append(f"{audit.dropped} audit events were dropped since the start.")
    return problems


class ReloadBundle(NativeMethod):
    """Looks for a bundle now, and answers when it is active or refused."""

    def __init__(self, reload: Callable[[str], BundleState]) -> None:
        self._reload = reload

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        del metadata
        state = self._reload(parsed(ReloadBundleRequest, message).name)
        return ReloadBundleResponse(bundle=_told(state)).SerializeToString()


def _told(state: BundleState) -> Bundle:
    return Bundle(name=state.name, revision=state.revision, digest=state.digest, error=state.error)


class InvalidateSubject(NativeMethod):
    """Invalidates one subject, and tells who hears of it."""

    def __init__(self, invalidate: Invalidate) -> None:
        self._invalidate = invalidate

    def _answer(self, metadata: Metadata, message: bytes) -> bytes:
        del metadata
        request = parsed(InvalidateRequest, message)
        told = {field.name: str(value) for field, value in request.ListFields()}
        return InvalidateResponse(shared=self._invalidate(told, subjects_of(request))).SerializeToString()


def subjects_of(request: InvalidateRequest) -> tuple[str, ...]:
    """What the request is about. Raises InvalidRequestError."""
    kind = request.WhichOneof("subject")
    if kind is None:
        raise InvalidRequestError("subject", "expected one of user_id, server_id, tool_id, policy, data_root, all")
    if request.tool_name and kind != "server_id":
        raise InvalidRequestError("tool_name", "is the name of a tool of server_id, which is not set")
    value = getattr(request, kind)
    if kind == "data_root":
        return subjects.of_data_root(tuple(step for step in value.split("/") if step))
    if not value:
        raise InvalidRequestError(kind, "is empty" if kind != "all" else "is false, which invalidates nothing")
    if request.tool_name:
        return subjects.of_named_tool(value, request.tool_name)
    if kind == "all":
        return (subjects.ALL,)
    return (_SINGLE[kind](value),)


def methods(sources: Sources, reload: Callable[[str], BundleState], invalidate: Invalidate) -> dict[str, Method]:
    """The methods of the service by full name; `reload` raises RequestError for a bundle that is not configured."""
    return {
        f"/{SERVICE}/GetStatus": GetStatus(sources),
        f"/{SERVICE}/ReloadBundle": ReloadBundle(reload),
        f"/{SERVICE}/Invalidate": InvalidateSubject(invalidate),
    }
