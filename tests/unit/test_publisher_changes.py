"""What a notification means: subjects to invalidate, and everything where it cannot be read."""

import pytest

from sark_pdp.cache.subjects import ATTRIBUTES, named, server, tool, user
from sark_pdp.publisher.changes import change_of

CASES = {
    '{"kind": "user", "changed": ["ann", "bob", "ann"]}': ("user", {user("ann"), user("bob")}),
    '{"kind": "server", "changed": ["s1"]}': ("server", {server("s1")}),
    '{"kind": "tool", "changed": [["t1", "s1", "read"]]}': (
        "tool",
        {tool("t1"), named("s1", "read"), named(None, "read")},
    ),
    '{"kind": "tool", "all": true}': ("tool", {ATTRIBUTES}),
    '{"kind": "user", "changed": []}': ("user", set()),
    "": ("unknown", {ATTRIBUTES}),
    "[]": ("unknown", {ATTRIBUTES}),
    '{"kind": "team", "changed": ["red"]}': ("unknown", {ATTRIBUTES}),
    '{"kind": "team", "all": true}': ("unknown", {ATTRIBUTES}),
    '{"kind": "user", "changed": [["t1", "s1", "read"]]}': ("unknown", {ATTRIBUTES}),
    '{"kind": "tool", "changed": ["t1"]}': ("unknown", {ATTRIBUTES}),
    '{"kind": "tool", "changed": [["t1", "s1"]]}': ("unknown", {ATTRIBUTES}),
    '{"kind": "user", "changed": [7]}': ("unknown", {ATTRIBUTES}),
    '{"kind": "user", "changed": ["ann"], "version": 2}': ("unknown", {ATTRIBUTES}),
    '{"kind": "user"}': ("unknown", {ATTRIBUTES}),
}


@pytest.mark.parametrize("payload", CASES)
def test_a_notification_names_subjects(payload: str) -> None:
    change = change_of(payload)
    assert (change.kind, set(change.subjects)) == CASES[payload]
    assert len(change.subjects) == len(set(change.subjects))
