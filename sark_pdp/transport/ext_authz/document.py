"""The input document of a `CheckRequest`: its attributes as JSON, and path, query and body parsed."""

import re
from collections.abc import Mapping
from typing import Final

from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from msgspec import Struct

from sark_pdp.errors import InvalidRequestError, WouldWaitError
from sark_pdp.model import Document, Json, Origin
from sark_pdp.projection import Projection
from sark_pdp.transport.ext_authz import parsing
from sark_pdp.transport.ext_authz.attributes import AttributesReader, wanted
from sark_pdp.transport.ext_authz.bodies import Bodies
from sark_pdp.transport.trace import HEADER, parent_in

_VERSION: Final = {"encoding": "protojson", "ext_authz": "v3"}
_METADATA: Final = ("metadataContext", "routeMetadataContext")

# Envoy takes this header from the client's request away and sets it where it sends a body.
_PARTIAL: Final = "x-envoy-auth-partial-body"

# A sign too, as -1 stands for a length that is not known.
_LENGTH: Final = re.compile("[+-]?[0-9]{1,18}")

_NO_BODY: Final = (None, False)
_NOWHERE: Final = Origin()
_UNTOLD: Final = "-"

# Characters of a header that every audit event keeps; a client may send as many as Envoy lets it.
_RECORDED: Final = 512


class Input(Struct, frozen=True, gc=False):
    """What a request says."""

    document: Document
    """At least what the policy reads, and what the audit trail wants to know of it beside the origin."""
    projected: Document | None
    """What the policy reads; None where it has not been told apart from the rest of the document."""
    origin: Origin
    """Empty where nobody is told."""
    request_id: str
    """As in the header `x-request-id`, which Envoy sets, else Envoy's own number of the stream; may be empty.

    A dash where nobody is told."""
    headers: Mapping[str, str]
    """All of them, those that Envoy sent raw too."""
    trace: str = ""
    """The span that the request says it belongs to; empty where it says none, or nobody is told."""


class InputReader:
    """Reads requests for one entrypoint: of them what it reads, possibly more. Thread-safe."""

    def __init__(self, projection: Projection, bodies: Bodies | None, max_depth: int, *, recorded: bool) -> None:
        """Without `bodies`, none is looked at. `recorded`: whether anybody is told of the origin."""
        tree = wanted(projection.paths)
        keys = set() if tree is None else tree.keys()
        attributes = None if tree is None else tree.get("attributes", {})
        self._whole = tree is None
        self._attributes = AttributesReader(attributes)
        self._all_attributes = attributes is None
        self._metadata = tuple(name for name in _METADATA if attributes is None or name in attributes)
        self._path = "parsed_path" in keys
        self._query = "parsed_query" in keys
        self._bodies = bodies
        self._body = bodies is not None and "parsed_body" in keys
        self._truncated = bodies is not None and "truncated_body" in keys
        self._version = "version" in keys
        self._principal = "source_principal" in keys
        self._recorded = recorded
        # Below the keys that are made here all of a value is taken, whatever part of it is read.
        self._exact = self._attributes.exact and all(
            below is None for key, below in (tree or {}).items() if key != "attributes"
        )
        self._max_depth = max_depth

    def read(self, attributes: AttributeContext, *, at_once: bool = False) -> Input:
        """Raises InvalidRequestError; for path, query and body also where the entrypoint does not read them.

        With `at_once`, WouldWaitError for a body that takes long to parse.
        """
        http = attributes.request.http
        if self._whole or http.HasField("header_map"):
            return self._read_whole(attributes, http, at_once=at_once)
        headers = http.headers
        document: Document = {}
        part = self._attributes.part(attributes, http, headers)
        if part or self._all_attributes:
            document["attributes"] = self._checked(part) if self._metadata else part
        self._add_path(document, http.path)
        body, truncated = _NO_BODY
        if http.body or http.raw_body or _PARTIAL in headers:
            body, truncated = self._read_body(http, headers, at_once=at_once)
        if self._body:
            document["parsed_body"] = body
        if self._truncated:
            document["truncated_body"] = truncated
        if self._version:
            document["version"] = _VERSION
        if self._principal and attributes.source.principal:
            document["source_principal"] = attributes.source.principal
        projected = document if self._exact else None
        if not self._recorded:
            return Input(document, projected, _NOWHERE, _UNTOLD, headers)
        if body is not None and not self._body:
            # Of an MCP call the trail tells the tool, which is in the body.
            document = {**document, "parsed_body": body}
        return Input(
            document,
            projected,
            _origin(attributes.source, headers),
            _request_id(headers, http),
            headers,
            _trace(headers),
        )

    def _read_whole(self, attributes: AttributeContext, http: AttributeContext.HttpRequest, *, at_once: bool) -> Input:
        """The document with all of its keys; of `attributes` what is read, all headers where Envoy sent them raw."""
        headers: Mapping[str, str] = http.headers
        document: Document = {"attributes": self._attributes.all(attributes), "version": _VERSION}
        if http.HasField("header_map"):
            headers = _set_headers(document, http)
        self._checked(document["attributes"])
        document["parsed_path"], document["parsed_query"] = parsing.path_and_query(http.path)
        if self._bodies is not None:
            body, truncated = self._read_body(http, headers, at_once=at_once)
            document["parsed_body"], document["truncated_body"] = body, truncated
        if attributes.source.principal:
            document["source_principal"] = attributes.source.principal
        origin, request_id = _origin(attributes.source, headers), _request_id(headers, http)
        return Input(document, None, origin, request_id, headers, _trace(headers))

    def _checked(self, attributes: Document) -> Document:
        for name in self._metadata:
            if name in attributes:
                parsing.check_depth(f"attributes.{name}", attributes[name], self._max_depth - 2)
        return attributes

    def _add_path(self, document: Document, target: str) -> None:
        if "%" in target or ";" in target:
            # Only with one of these can it be malformed.
            path, query = parsing.path_and_query(target)
            if self._path:
                document["parsed_path"] = path
            if self._query:
                document["parsed_query"] = query
            return
        if self._path:
            document["parsed_path"] = target.partition("?")[0].lstrip("/").split("/")
        if self._query:
            document["parsed_query"] = parsing.pairs("parsed_query", target.partition("?")[2])

    def _read_body(
        self, http: AttributeContext.HttpRequest, headers: Mapping[str, str], *, at_once: bool
    ) -> tuple[Json, bool]:
        if self._bodies is None:
            return _NO_BODY
        if _PARTIAL in headers and headers[_PARTIAL].lower() == "true":
            return None, True
        kind = headers.get("content-type", "")
        # In a text Envoy has replaced what is no UTF-8: a binary message there is not the one that goes on.
        text = "" if kind.startswith("application/grpc") else http.body
        content = text.encode() if text else http.raw_body
        if not content:
            return _NO_BODY
        if _stated_length(headers) > len(content):
            return None, True
        if at_once and self._bodies.takes_long(kind, content):
            raise WouldWaitError(kind)
        return self._bodies.parse(kind, content, http.path)


def _origin(source: AttributeContext.Peer, headers: Mapping[str, str]) -> Origin:
    # Asked first: a map of protobuf takes three times as long for `get`.
    agent = headers["user-agent"][:_RECORDED] if "user-agent" in headers else ""
    return Origin(source.address.socket_address.address, agent, source.principal)


def _request_id(headers: Mapping[str, str], http: AttributeContext.HttpRequest) -> str:
    stated = headers["x-request-id"][:_RECORDED] if "x-request-id" in headers else ""
    return stated or http.id


def _trace(headers: Mapping[str, str]) -> str:
    return parent_in(headers[HEADER]) if HEADER in headers else ""


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
    """Below zero where it is not known."""
    stated = headers.get("content-length") or "0"
    if not _LENGTH.fullmatch(stated):
        raise InvalidRequestError("headers", "content-length is not a number")
    return int(stated)
