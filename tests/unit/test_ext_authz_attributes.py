"""Attributes are converted as far as a policy reads them, which must make no difference to it."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.model import Request
from sark_pdp.projection import Path, Projection
from sark_pdp.transport.ext_authz import Answers, ExtAuthz
from sark_pdp.transport.handler import Metadata
from tests.fix_ext_authz import ALLOW, ENTRYPOINT, Decisions, message

TEXT = st.text(max_size=6)
STRUCTS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
KEYS = st.sampled_from(["content-type", "x-user", ":path", "x.y"])
PEERS = st.fixed_dictionaries(
    {},
    optional={
        "address": st.fixed_dictionaries(
            {},
            optional={
                "socketAddress": st.fixed_dictionaries(
                    {}, optional={"address": TEXT, "portValue": st.sampled_from([0, 443]), "ipv4Compat": st.booleans()}
                )
            },
        ),
        "principal": TEXT,
        "labels": st.dictionaries(KEYS, TEXT, max_size=2),
    },
)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "source": PEERS,
        "destination": PEERS,
        "request": st.fixed_dictionaries(
            {},
            optional={
                "time": st.just("2026-03-04T05:06:07.5Z"),
                "http": st.fixed_dictionaries(
                    {},
                    optional={
                        "method": st.sampled_from(["GET", "POST"]),
                        "headers": st.dictionaries(KEYS, st.sampled_from(["", "a"]), max_size=3)
                        | st.just({"content-type": "application/json"}),
                        "headerMap": st.fixed_dictionaries(
                            {"headers": st.lists(st.fixed_dictionaries({"key": KEYS, "rawValue": st.just("YQ==")}))}
                        ),
                        "path": st.sampled_from(["", "/a?b=c"]),
                        "size": st.integers(-(2**63), 2**63 - 1).map(str),
                        "rawBody": st.sampled_from(["MQ==", "eyJhIjp7ImIiOjF9fQ=="]),
                    },
                ),
            },
        ),
        "contextExtensions": st.dictionaries(KEYS, TEXT, max_size=2),
        "metadataContext": st.fixed_dictionaries(
            {"filterMetadata": st.dictionaries(KEYS, STRUCTS, max_size=2)},
        ),
        "tlsSession": st.fixed_dictionaries({}, optional={"sni": TEXT}),
    },
)


NAMES = (
    *("parsed_body", "parsed_query", "source_principal", "source", "address", "socketAddress", "portValue"),
    *("request", "http", "headers", "x-user", "size", "time"),
)


def paths_into(value: Any, path: Path = ()) -> Iterator[Path]:
    """To everything in a document, and to much that it does not have."""
    yield path
    if isinstance(value, dict):
        for key in NAMES:
            if key not in value:
                yield (*path, key)
        for key, below in value.items():
            yield from paths_into(below, (*path, key))
    else:
        yield (*path, "below")


def asked(attributes: dict[str, Any], paths: Iterable[Path]) -> Request:
    """The request that a policy with this projection is asked."""
    decisions = Decisions(ALLOW, paths=paths)
    ExtAuthz(decisions, Answers(), ENTRYPOINT, max_input_bytes=2**20, max_depth=30, max_values=1000).answer(
        Metadata(), message(attributes)
    )
    return decisions.requests[-1]


@given(attributes=ATTRIBUTES, data=st.data())
def test_what_is_left_out_is_nothing_that_the_policy_reads(attributes: dict[str, Any], data: st.DataObject) -> None:
    """Only the projected part of a request is converted: for the policy, and so for the key, it is as if all were."""
    whole = asked(attributes, [()]).document
    every = list(paths_into(whole))
    some = data.draw(st.lists(st.sampled_from(every), max_size=20))
    # A projection keeps the shorter of two paths, so all of them at once would be the whole.
    leaves = [path for path in every if (*path, "below") in every]
    for paths in [some, leaves, *([path] for path in every)]:
        projection = Projection(paths)
        request = asked(attributes, paths)
        wanted = projection.project(whole)
        assert projection.project(request.document) == wanted
        assert request.projected is None or request.projected == wanted


@given(attributes=ATTRIBUTES)
def test_what_the_audit_trail_tells_does_not_depend_on_what_is_read(attributes: dict[str, Any]) -> None:
    """But for what is said nowhere else: the method of HTTP."""
    whole = asked(attributes, [()])
    nothing = asked(attributes, [("version",)])
    assert nothing.origin == whole.origin
    assert nothing.document.get("parsed_body") == whole.document["parsed_body"]


@pytest.mark.parametrize("path", ["/a%2", "/?a=%", "/?a=1;b", "/%zz?x"])
@pytest.mark.parametrize("reads", [(), ("version",), ("parsed_path",), ("parsed_query", "a")])
def test_what_is_malformed_is_refused_whatever_is_read(path: str, reads: Path) -> None:
    decisions = Decisions(ALLOW, paths=[reads])
    method = ExtAuthz(decisions, Answers(), ENTRYPOINT, max_input_bytes=2**20, max_depth=30, max_values=1000)
    reply = method.answer(Metadata(), message({"request": {"http": {"path": path}}}))
    assert CheckResponse.FromString(reply.message).denied_response.status.code == 400
    assert decisions.requests == []


def test_a_policy_is_usually_given_what_was_read_as_it_is() -> None:
    """The common case is the quick one: nothing has to be told apart after it was read."""
    paths: list[Path] = [
        ("attributes", "request", "http", "headers", "x-user"),
        ("attributes", "request", "http", "method"),
        ("attributes", "source", "principal"),
        ("parsed_path",),
    ]
    http = {"method": "GET", "headers": {"x-user": "bob", "x-other": "1"}, "path": "/a/b?c=d"}
    request = asked({"request": {"http": http}, "source": {"principal": "web"}}, paths)
    assert request.projected == {
        "attributes": {
            "request": {"http": {"method": "GET", "headers": {"x-user": "bob"}}},
            "source": {"principal": "web"},
        },
        "parsed_path": ["a", "b"],
    }
