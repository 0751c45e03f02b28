"""The input document of a `CheckRequest`: its attributes as JSON, and path, query and body parsed."""

from collections.abc import Mapping
from typing import Final

from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from msgspec import Struct

from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Document, Json, Origin
from sark_pdp.projection import Projection
from sark_pdp.transport.ext_authz import parsing
from sark_pdp.transport.ext_authz.attributes import reader, wanted

_VERSION: Final = {"encoding": "protojson", "ext_authz": "v3"}
_METADATA: Final = ("metadataContext", "routeMetadataContext")

# Envoy takes this header from the client's request away and sets it where it sends a body.
_PARTIAL: Final = "x-envoy-auth-partial-body"

# Characters of a header that every audit event keeps; a client may send as many as Envoy lets it.
_RECORDED: Final = 512


class Input(Struct, frozen=True):
    """What a request says."""

    document: Document
    origin: Origin
    request_id: str
    """As in the header `x-request-id`, which Envoy sets, else Envoy's own number of the stream; may be empty."""


class InputReader:
    """Reads requests for one entrypoint: of `attributes` what it reads, possibly more; the rest whole. Thread-safe."""

    def __init__(self, projection: Projection, max_depth: int) -> None:
        tree = wanted(projection.paths)
        self._read = reader(AttributeContext.DESCRIPTOR, None if tree is None else tree.get("attributes", {}))
        self._max_depth = max_depth

    def read(self, attributes: AttributeContext) -> Input:
        """Raises InvalidRequestError; for path, query and body also where the entrypoint does not read them."""
        http = attributes.request.http
        document: Document = {"attributes": self._read(attributes), "version": _VERSION}
        headers: Mapping[str, str] = http.headers
        if http.HasField("header_map"):
            headers = _set_headers(document, http)
        for name in _METADATA:
            if name in document["attributes"]:
                parsing.check_depth(f"attributes.{name}", document["attributes"][name], self._max_depth - 2)
        document["parsed_path"], document["parsed_query"] = parsing.path_and_query(http.path)
        document["parsed_body"], document["truncated_body"] = self._body(http, headers)
        source = attributes.source
        principal = source.principal
        if principal:
            document["source_principal"] = principal
        origin = Origin(source.address.socket_address.address, headers.get("user-agent", "")[:_RECORDED], principal)
        return Input(document, origin, headers.get("x-request-id", "")[:_RECORDED] or http.id)

    def _body(self, http: AttributeContext.HttpRequest, headers: Mapping[str, str]) -> tuple[Json, bool]:
        content = http.body.encode() or http.raw_body
        if headers.get(_PARTIAL, "").lower() == "true":
            return None, True
        if not content:
            return None, False
        if _stated_length(headers) > len(content):
            return None, True
        return parsing.body(headers.get("content-type", ""), content, self._max_depth - 1), False


def _set_headers(document: Document, http: AttributeContext.HttpRequest) -> dict[str, str]:
    """Puts raw headers where policies look for headers, as Envoy itself would have: repeated ones joined by commas.

    Without it a rule that denies by a header would be undefined, and deny nothing, once an operator turns
    `encode_raw_headers` on.
    """
    headers = {key: http.headers[key] for key in http.headers}
    for header in http.header_map.headers:
        name = header.key.lower()
        value = header.value or header.raw_value.decode(errors="replace")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    document["attributes"].setdefault("request", {}).setdefault("http", {})["headers"] = headers
    return headers


def _stated_length(headers: Mapping[str, str]) -> int:
    stated = headers.get("content-length", "")
    if not stated:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) < 19):
        raise InvalidRequestError("headers", "content-length is not a number")
    return int(stated)
