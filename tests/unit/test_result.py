"""Every shape that a policy may return, and what is made of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import EvaluationError
from sark_pdp.model import Outcome, Verdict

ALLOWED, DENIED, NONE = "allowed by the policy", "denied by the policy", "the policy returned no decision"
VERDICTS: list[tuple[Any, Outcome, str]] = [
    (True, Outcome.ALLOW, ALLOWED),
    (False, Outcome.DENY, DENIED),
    ({"allow": True}, Outcome.ALLOW, ALLOWED),
    ({"allow": False}, Outcome.DENY, DENIED),
    ({"allowed": True}, Outcome.ALLOW, ALLOWED),
    ({"allowed": False, "body": "no"}, Outcome.DENY, DENIED),
    ({"allow": False, "allowed": True}, Outcome.DENY, DENIED),
    ({"allow": True, "allowed": False}, Outcome.DENY, DENIED),
    ({"allow": True, "deny": []}, Outcome.ALLOW, ALLOWED),
    ({"allow": True, "deny": ["too far away"], "reason": "it trusts"}, Outcome.DENY, "it trusts"),
    ({"allow": True, "deny": True}, Outcome.DENY, DENIED),
    ({"allow": None, "allowed": True}, Outcome.DENY, NONE),
    ({"allow": True, "reason": "as you like"}, Outcome.ALLOW, "as you like"),
    ({"allow": False, "audit_reason": "not you"}, Outcome.DENY, "not you"),
    ({"allow": False, "reason": "one", "audit_reason": "other"}, Outcome.DENY, "one"),
    ({"allow": False, "reason": 7}, Outcome.DENY, DENIED),
    ({"allow": True, "reason": None}, Outcome.ALLOW, ALLOWED),
    ({}, Outcome.DENY, NONE),
    ({"deny": []}, Outcome.DENY, NONE),
    ([], Outcome.DENY, NONE),
    ([True], Outcome.DENY, NONE),
    ("true", Outcome.DENY, NONE),
    ("", Outcome.DENY, NONE),
    (1, Outcome.DENY, NONE),
    (None, Outcome.DENY, NONE),
]


@pytest.mark.parametrize(("result", "outcome", "reason"), VERDICTS)
def test_a_result_decides(result: Any, outcome: Outcome, reason: str) -> None:
    text = msgspec.json.encode(result)
    assert verdict_of(text) == Verdict(outcome, reason, result, text)


def test_no_result_is_undefined() -> None:
    assert verdict_of(None) == Verdict(Outcome.UNDEFINED, "the policy does not decide on this input")


UNUSABLE: list[tuple[Any, str]] = [
    ({"allow": "true"}, "allow is not a boolean"),
    ({"allow": 1}, "allow is not a boolean"),
    ({"allowed": {}}, "allow is not a boolean"),
    ({"allow": True, "remove_parameters": "a"}, "remove_parameters is not an array"),
    ({"allow": True, "remove_parameters": {"a": True}}, "remove_parameters is not an array"),
    ({"allow": True, "remove_parameters": [1]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": [""]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": ["/"]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": ["a//b"]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": [[]]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": [["a", 1]]}, "remove_parameters: a path is "),
    ({"allow": True, "remove_parameters": [["a", ""]]}, "remove_parameters: a path is "),
    ({"allow": False, "redact_parameters": [None]}, "redact_parameters: a path is "),
    ({"allow": True, "filtered_parameters": []}, "filtered_parameters is not an object"),
    ({"allow": True, "filtered_parameters": "all"}, "filtered_parameters is not an object"),
    ({"allow": True, "cache_ttl": -1}, "cache_ttl is not a number of seconds"),
    ({"allow": True, "cache_ttl": "60"}, "cache_ttl is not a number of seconds"),
    ({"allow": True, "cache_ttl": True}, "cache_ttl is not a number of seconds"),
    ({"allow": True, "cache_ttl": 10**400}, "cache_ttl is not a number of seconds"),
]


@pytest.mark.parametrize(("result", "problem"), UNUSABLE)
def test_a_field_of_a_wrong_type_never_allows(result: Any, problem: str) -> None:
    verdict = verdict_of(msgspec.json.encode(result))
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith(f"the policy returned an unusable result: {problem}")
    assert verdict.remove_parameters is None
    assert verdict.cache_ttl is None


FIELDS: list[tuple[str, Any, Any]] = [
    ("remove_parameters", ["a", "b/c", "/d/e/", ["f", "g/h"]], (("a",), ("b", "c"), ("d", "e"), ("f", "g/h"))),
    ("remove_parameters", ["a~1b/~0c/~01", ["a~1b"]], (("a/b", "~c", "~1"), ("a~1b",))),
    ("remove_parameters", [], ()),
    ("remove_parameters", None, None),
    ("redact_parameters", ["list/0/secret"], (("list", "0", "secret"),)),
    ("filtered_parameters", {"a": [1]}, {"a": [1]}),
    ("filtered_parameters", {}, {}),
    ("filtered_parameters", None, None),
    ("cache_ttl", 0, 0.0),
    ("cache_ttl", 0.25, 0.25),
    ("cache_ttl", 60, 60.0),
    ("cache_ttl", None, None),
]


@pytest.mark.parametrize(("field", "stated", "read"), FIELDS)
@pytest.mark.parametrize("allow", [True, False])
def test_what_else_an_object_says_is_kept(field: str, stated: Any, read: Any, allow: bool) -> None:
    verdict = verdict_of(msgspec.json.encode({"allow": allow, field: stated}))
    assert verdict.outcome is (Outcome.ALLOW if allow else Outcome.DENY)
    assert getattr(verdict, field) == read


@pytest.mark.parametrize("text", [b'"\xff"', b"1e400", b"{", b"", b'{"allow":true', b'"\\ud800"', b"[" * 100_000])
def test_text_that_is_not_json_fails_the_evaluation(text: bytes) -> None:
    with pytest.raises(EvaluationError, match=r"^the policy returned a result that is not JSON$"):
        verdict_of(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=5,
)
KNOWN = st.sampled_from(["allow", "allowed", "reason", "cache_ttl", "remove_parameters", "filtered_parameters"])


@given(JSON | st.dictionaries(KNOWN, JSON))
def test_only_true_in_the_right_place_allows(result: Any) -> None:
    verdict = verdict_of(msgspec.json.encode(result))
    says = result.get("allow", result.get("allowed")) if isinstance(result, dict) else result
    assert verdict.outcome is not Outcome.ALLOW or says is True
