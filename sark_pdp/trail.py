"""Puts together what is told of decisions: the audit trail, what ships it, and spans. `app` alone imports it."""

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sark_pdp.audit.chain import read_key
from sark_pdp.audit.mask import Mask, Rule
from sark_pdp.audit.off import NoTrail
from sark_pdp.audit.queue import AuditQueue
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.statistics import Statistics
from sark_pdp.errors import StartError
from sark_pdp.interfaces import AuditSink, Clock
from sark_pdp.model import Seconds
from sark_pdp.observability.exposition import AuditReadings
from sark_pdp.settings import AuditSettings, AuditTlsSettings, TracingSettings

if TYPE_CHECKING:
    from sark_pdp.audit.shipper import Shipper
    from sark_pdp.audit.uplink import Uplink, WriterTls
    from sark_pdp.observability.spans import Spans

_LEAST_GRACE: Final = 0.5
"""Seconds that spans get at the end, however long the events took."""

_log = logging.getLogger(__name__)


class Trail:
    """What `audit.*` and `tracing.*` make of a sidecar. `start` and `close` are called once each, by one thread."""

    def __init__(self, settings: AuditSettings, tracing: TracingSettings, clock: Clock) -> None:
        """Raises StartError where a key, a certificate, a package or the folder of the spool cannot be used."""
        self._nothing = NoTrail()
        self._shipper: Shipper | None = None
        self._queue: AuditQueue | None = None
        self.spans = None if tracing.otlp_endpoint is None else _spans(tracing, settings.source_name)
        """Where there are any."""
        self._ratio = tracing.sample_ratio
        if not settings.spool_max_bytes:
            _log.warning("the audit trail is off (audit.spool_max_bytes is 0): no decision is recorded")
            return
        key = None if settings.chain_key_file is None else read_key(settings.chain_key_file, "chain")
        mask = _mask(settings)
        uplink = _uplink(settings)
        self._queue = AuditQueue(
            Spool(settings.spool_dir, settings.spool_max_bytes),
            settings.source_name,
            clock=clock,
            key=key,
            mask=mask,
            on_full=settings.on_full,
        )
        if uplink is not None:
            self._shipper = _shipper(settings, self._queue, uplink)

    @property
    def sink(self) -> AuditSink:
        """Takes what is to be recorded."""
        trail = self._queue or self._nothing
        if self.spans is None:
            return trail
        from sark_pdp.observability.spans import TracedSink

        return TracedSink(trail, self.spans, self._ratio, random.random)

    def start(self) -> None:
        """Raises AuditError where the first event cannot be committed."""
        if self._queue is not None:
            self._queue.start()
        if self._shipper is not None:
            self._shipper.start()
        if self.spans is not None:
            self.spans.start()

    def close(self, grace: Seconds) -> None:
        """Commits and ships what is left, then exports spans. Raises AuditError where an event was not committed."""
        ends = time.monotonic() + grace
        try:
            if self._queue is not None:
                self._queue.close(grace, None if self._shipper is None else self._shipper.finish)
        finally:
            if self.spans is not None:
                self.spans.close(Seconds(max(ends - time.monotonic(), _LEAST_GRACE)))

    def statistics(self) -> Statistics:
        """As of now."""
        now = (self._queue or self._nothing).statistics()
        if self._shipper is None:
            return now
        shipping = self._shipper.statistics()
        return replace(
            now, ships=True, shipped=shipping.shipped, lag_seconds=shipping.lag, shipping_problem=shipping.problem
        )

    def readings(self) -> AuditReadings:
        """The same for metrics."""
        now = self.statistics()
        return AuditReadings(now.queued, now.spool_bytes, now.dropped, now.ships, now.shipped, now.lag_seconds)


def _mask(settings: AuditSettings) -> Mask:
    rules = [Rule(each.path.segments, each.operation, each.length) for each in settings.mask]
    return Mask(rules, b"" if settings.mask_key_file is None else read_key(settings.mask_key_file, "mask"))


def _spans(settings: TracingSettings, instance: str) -> "Spans":
    try:
        from sark_pdp.observability.otlp import OtlpExporter
    except ModuleNotFoundError as error:
        raise StartError(
            f"tracing.otlp_endpoint: needs the package {error.name}, which is not installed; install sark-pdp[tracing]"
        ) from None
    from sark_pdp.observability.spans import Spans

    endpoint = settings.otlp_endpoint or ""
    return Spans(OtlpExporter(endpoint, settings.ca_file, settings.service_name, instance))


def _uplink(settings: AuditSettings) -> "Uplink | None":
    if not settings.writer:
        return None
    from sark_pdp.audit.uplink import Uplink

    return Uplink([str(address) for address in settings.writer], _tls(settings.tls))


def _shipper(settings: AuditSettings, queue: AuditQueue, uplink: "Uplink") -> "Shipper":
    from sark_pdp.audit.shipper import Shipper

    return Shipper(settings.spool_dir, queue.outbox, uplink)


def _tls(tls: AuditTlsSettings) -> "WriterTls | None":
    from sark_pdp.audit.uplink import WriterTls

    return None if tls.ca_file is None else WriterTls(tls.ca_file, tls.cert_file, tls.key_file, tls.server_name)
