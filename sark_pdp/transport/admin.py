"""`sark.pdp.v1.Administration`: what this process serves, and what is wrong with it."""

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from sark_pdp._proto.admin_pb2 import (
    AuditTrail,
    Bundle,
    Cache,
    GetStatusRequest,
    GetStatusResponse,
    ReloadBundleRequest,
    ReloadBundleResponse,
)
from sark_pdp.audit.statistics import Statistics
from sark_pdp.engine.policies import BundleState
from sark_pdp.interfaces import StoreStatistics
from sark_pdp.transport.handler import Metadata, Method
from sark_pdp.transport.health import Readiness
from sark_pdp.transport.method import NativeMethod, parsed

SERVICE: Final = "sark.pdp.v1.Administration"


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
                Cache(name=s.name, entries=s.entries, capacity=s.capacity, hits=s.hits, misses=s.misses)
                for s in sources.stores()
            ],
            audit=AuditTrail(
                source=audit.source,
                sequence=audit.sequence,
                queued=audit.queued,
                spool_bytes=audit.spool_bytes,
                dropped=audit.dropped,
            ),
        ).SerializeToString()


def _problems(readiness: Readiness, bundles: Iterable[BundleState], audit: Statistics) -> list[str]:
    """One sentence each; an operator reads them in this order."""
    problems = [f"Not serving: {readiness.problem}."] if readiness.problem else []
    problems += [f"Bundle {bundle.name} is not activated: {bundle.error}." for bundle in bundles if bundle.error]
    if audit.problem:
        problems.append(f"{audit.problem}.")
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


def methods(sources: Sources, reload: Callable[[str], BundleState]) -> dict[str, Method]:
    """The methods of the service by full name; `reload` raises RequestError for a bundle that is not configured."""
    return {f"/{SERVICE}/GetStatus": GetStatus(sources), f"/{SERVICE}/ReloadBundle": ReloadBundle(reload)}
