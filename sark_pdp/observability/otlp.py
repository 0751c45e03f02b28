"""Makes spans of OpenTelemetry and sends them by OTLP over HTTP. Alone imports opentelemetry; only where that is on.

<https://opentelemetry.io/docs/specs/otlp/>
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sark_pdp.errors import one_line
from sark_pdp.model import Outcome, Tier
from sark_pdp.observability.spans import Finished

NAME: Final = "sark_pdp.decide"
"""Of every span."""

_TIMEOUT: Final = 5.0
"""Seconds for one export, with what is tried again."""
_PATH: Final = "/v1/traces"
_LONGEST_REASON: Final = 300

_OUTCOMES: Final = {outcome: outcome.name.lower() for outcome in Outcome}
_TIERS: Final = {tier: tier.name.lower() for tier in Tier}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)


class OtlpExporter:
    """For one thread, but for `abort`."""

    def __init__(self, endpoint: str, ca_file: Path | None, service: str, instance: str) -> None:
        """`instance` is what the source of the audit trail is called."""
        self._says = _LastWords()
        log = logging.getLogger("opentelemetry")
        log.propagate = False
        log.addHandler(self._says)
        session = requests.Session()
        # The bundle of authorities that a variable may name would win over the one that was set.
        session.trust_env = ca_file is None
        self._exporter = OTLPSpanExporter(
            _url(endpoint),
            None if ca_file is None else str(ca_file),
            timeout=_TIMEOUT,
            compression=Compression.NoCompression,
            session=session,
        )
        self._resource = Resource.create({"service.name": service, "service.instance.id": instance})
        self._scope = InstrumentationScope("sark_pdp", version("sark-pdp"))
        self._ids = RandomIdGenerator()

    def export(self, finished: Sequence[Finished]) -> str:
        """What went wrong; empty where they were taken."""
        self._says.text = ""
        if self._exporter.export([self._span(each) for each in finished]) is SpanExportResult.SUCCESS:
            return ""
        return self._says.text or "the collector does not answer"

    def abort(self) -> None:
        """No export waits to try again from now on."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _span(self, finished: Finished) -> ReadableSpan:
        parent = None
        if finished.parent:
            _, trace, span, _ = finished.parent.split("-")
            parent = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=_SAMPLED)
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        return ReadableSpan(
            NAME,
            SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=_SAMPLED),
            parent,
            self._resource,
            _attributes(finished),
            kind=SpanKind.SERVER,
            status=_ERROR if finished.outcome is Outcome.ERROR else _UNSET,
            start_time=finished.ended_ns - finished.took_ns,
            end_time=finished.ended_ns,
            instrumentation_scope=self._scope,
        )


class _LastWords(logging.Handler):
    """Keeps why an export failed, which its result does not tell. It would else be logged with every batch."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """What is told of an attempt says more than that there will be no other."""
        said = record.getMessage()
        if not self.text or "due to timeout, max retries" not in said:
            self.text = one_line(said, _LONGEST_REASON)


def _attributes(finished: Finished) -> Mapping[str, str | int | float]:
    attributes: dict[str, str | int | float] = {
        "sark_pdp.entrypoint": finished.entrypoint.name,
        "sark_pdp.policy.revision": finished.entrypoint.revision,
        "sark_pdp.outcome": _OUTCOMES[finished.outcome],
        "sark_pdp.age_seconds": finished.age,
    }
    if finished.id is not None:
        attributes["sark_pdp.decision_id"] = finished.id
    if finished.tier is not None:
        attributes["sark_pdp.tier"] = _TIERS[finished.tier]
    if finished.resources:
        attributes["sark_pdp.filter.resources"] = finished.resources
        attributes["sark_pdp.filter.allowed"] = finished.allowed
    return attributes


def _url(endpoint: str) -> str:
    """With the usual path where it has none, as OTLP says of a base."""
    url = urlsplit(endpoint)
    return url._replace(path=_PATH).geturl() if url.path in {"", "/"} else endpoint
