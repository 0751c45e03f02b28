"""Attributes are converted as far as a policy reads them, which must make no difference to it."""

from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.model import Document
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
                        "headers": st.dictionaries(KEYS, st.sampled_from(["", "a"]), max_size=3),
                        "headerMap": st.fixed_dictionaries(
                            {"headers": st.lists(st.fixed_dictionaries({"key": KEYS, "rawValue": st.just("YQ==")}))}
                        ),
                        "path": st.sampled_from(["", "/a?b=c"]),
                        "size": st.integers(-(2**63), 2**63 - 1).map(str),
                        "rawBody": st.just("YQ=="),
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


NAMES = ("source", "address", "socketAddress", "portValue", "request", "http", "headers", "x-user", "size", "time")


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


def asked(attributes: dict[str, Any], paths: Iterable[Path]) -> Document:
    """The document that a policy with this projection is asked about."""
    decisions = Decisions(ALLOW, paths=paths)
    ExtAuthz(decisions, Answers(), ENTRYPOINT, max_input_bytes=2**20, max_depth=30, max_values=1000).answer(
        Metadata(), message(attributes)
    )
    return decisions.requests[-1].document


@given(attributes=ATTRIBUTES, data=st.data())
def test_what_is_left_out_is_nothing_that_the_policy_reads(attributes: dict[str, Any], data: st.DataObject) -> None:
    """Only the projected part of a request is converted: for the policy it is as if all of it were."""
    whole = asked(attributes, [()])
    every = list(paths_into(whole["attributes"], ("attributes",)))
    some = data.draw(st.lists(st.sampled_from(every), max_size=20))
    # A projection keeps the shorter of two paths, so all of them at once would be the whole.
    leaves = [path for path in every if (*path, "below") in every]
    for paths in [some, leaves, *([path] for path in every)]:
        projection = Projection(paths)
        assert projection.project(asked(attributes, paths)) == projection.project(whole)
