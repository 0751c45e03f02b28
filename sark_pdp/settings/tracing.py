"""The settings of traces, and what of them only makes sense together."""

import os
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from sark_pdp.settings.units import Ratio

_EXPECTED: Final = "expected http://host:port or https://host:port, with a path where it is not /v1/traces"


class TracingSettings(Struct, frozen=True, kw_only=True):
    """Spans of decisions, exported by OTLP. Needs the packages of `sark-pdp[tracing]`."""

    otlp_endpoint: Annotated[
        str | None,
        Meta(
            description="Where spans are sent, OTLP over HTTP with protobuf: `http:` or `https:`. Without a path, to"
            " `/v1/traces` there. Without it, tracing is off."
        ),
    ] = None
    ca_file: Annotated[Path | None, Meta(description="Authorities of that server, PEM.")] = None
    sample_ratio: Annotated[
        Ratio,
        Meta(
            description="Share of the decisions that become spans where the caller names no span; where it does, its"
            " own sampling is followed.",
            ge=0,
            le=1,
        ),
    ] = Ratio(1.0)
    service_name: Annotated[str, Meta(description="The resource attribute `service.name`.")] = "sark-pdp"


class TracingProblem(Struct, frozen=True):
    """The first thing that is wrong."""

    key: str
    """Below `tracing`."""
    text: str
    """The end of a sentence."""


def problem_of(tracing: TracingSettings) -> TracingProblem | None:
    """None where all is well."""
    file, endpoint = tracing.ca_file, tracing.otlp_endpoint
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        return TracingProblem("ca_file", "cannot be read; expected a file that this process may read")
    if endpoint is None:
        alone = "is of no use alone; set tracing.otlp_endpoint too"
        return None if file is None else TracingProblem("ca_file", alone)
    if problem := _of_url(endpoint):
        return TracingProblem("otlp_endpoint", problem)
    if file is not None and not endpoint.startswith("https:"):
        return TracingProblem("otlp_endpoint", "is not reached over TLS, and there is a ca_file; expected https:")
    return None


def _of_url(text: str) -> str:
    try:
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text or url.fragment:
        return f"is no URL of a collector; {_EXPECTED}"
    if url.username is not None or url.password is not None:
        return "has a user or a password in it, where others could read it; expected an URL without"
    return ""
