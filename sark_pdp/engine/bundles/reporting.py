"""Tells what became of bundles: to the log, to metrics, and to the audit trail."""

import logging
import time
from collections.abc import Callable, Sequence

from uuid_utils import uuid7

from sark_pdp.engine.policies import LoadedPolicies
from sark_pdp.engine.preparation import PreparedBundle
from sark_pdp.errors import BundleError, BundleSignatureError, BundleSourceError
from sark_pdp.interfaces import AuditSink
from sark_pdp.model import DecisionId, Json, LifecycleRecord, Seconds
from sark_pdp.observability.metrics import Metrics

_log = logging.getLogger(__name__)


class Reporter:
    """The Observer of a process."""

    def __init__(self, audit: AuditSink, metrics: Metrics, on_active: Callable[[LoadedPolicies], None]) -> None:
        """`on_active` is called with each new set of policies, once it answers."""
        self._audit = audit
        self._metrics = metrics
        self._on_active = on_active

    def activated(self, bundles: Sequence[PreparedBundle], policies: LoadedPolicies, took: Seconds) -> None:
        """One observation; a log line and an event for each bundle."""
        self._metrics.activation.observe(took)
        self._on_active(policies)
        for bundle in bundles:
            self._metrics.bundles.activated(bundle.name)
            details: dict[str, Json] = {"bundle": bundle.name, "revision": bundle.revision, "digest": bundle.digest}
            self._record("policy_activated", "low", details)
            _log.info("a bundle is active", extra={**details, "entrypoints": policies.names, "seconds": round(took, 3)})

    def failed(self, name: str, error: Exception, *, news: bool) -> None:
        """All are counted; logged and audited is what is new. A source that does not answer has refused nothing."""
        self._metrics.bundles.failed(name, error.reason if isinstance(error, BundleError) else "internal")
        if not news:
            return
        if not isinstance(error, BundleError | OSError):
            _log.error("a bundle could not be looked at", extra={"bundle": name}, exc_info=error)
        else:
            _log.warning("a bundle is not activated", extra={"bundle": name, "reason": str(error)})
        if isinstance(error, BundleError) and not isinstance(error, BundleSourceError):
            severity = "high" if isinstance(error, BundleSignatureError) else "medium"
            self._record("policy_refused", severity, {"bundle": name, "reason": str(error)})

    def _record(self, event_type: str, severity: str, details: dict[str, Json]) -> None:
        self._audit.put_nowait(LifecycleRecord(DecisionId(str(uuid7())), time.time_ns(), event_type, severity, details))
