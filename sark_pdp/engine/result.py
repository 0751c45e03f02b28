"""Reads what an entrypoint returned: a boolean, or an object that says more; anything else never allows."""

from typing import Any, Final

import msgspec

from sark_pdp.errors import EvaluationError
from sark_pdp.model import Json, Outcome, Seconds, Verdict

_NOT_STRINGS: Final = "a path is a string of segments joined by '/', or an array of strings"

_decode = msgspec.json.Decoder().decode


class _UnusableError(Exception):
    """The result has the right shape but a field of the wrong type."""


def verdict_of(result_json: bytes | None) -> Verdict:
    """The verdict that a result means; None is an undefined one.

    An object decides by `allow` or, as opa-envoy-plugin has it, `allowed`, and never allows with a `deny` that is not
    empty. A field of a wrong type makes it an error, for a policy that meant to say `remove_parameters` must not be
    taken to have said nothing.
    """
    if result_json is None:
        return Verdict(Outcome.UNDEFINED, "the policy does not decide on this input")
    try:
        result = _decode(result_json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # A policy can make text that is not UTF-8 (base64.decode) and numbers beyond all bounds.
        raise EvaluationError("the policy returned a result that is not JSON") from error
    if result is True:
        return Verdict(Outcome.ALLOW, "allowed by the policy", result, result_json)
    if result is False:
        return Verdict(Outcome.DENY, "denied by the policy", result, result_json)
    if type(result) is not dict:
        return Verdict(Outcome.DENY, "the policy returned no decision", result, result_json)
    try:
        return _verdict_of_object(result, result_json)
    except _UnusableError as error:
        return Verdict(Outcome.ERROR, f"the policy returned an unusable result: {error}", result, result_json)


def _verdict_of_object(result: dict[str, Json], result_json: bytes) -> Verdict:
    stated = [result[name] for name in ("allow", "allowed") if name in result]
    if not stated or None in stated:
        return Verdict(Outcome.DENY, "the policy returned no decision", result, result_json)
    if any(type(value) is not bool for value in stated):
        raise _UnusableError("allow is not a boolean")
    # SARK's policies on agents say `deny` beside it, a set of reasons: one is enough.
    allow = all(stated) and not result.get("deny")
    reason = result.get("reason", result.get("audit_reason"))
    if type(reason) is not str:
        reason = "allowed by the policy" if allow else "denied by the policy"
    return Verdict(
        outcome=Outcome.ALLOW if allow else Outcome.DENY,
        reason=reason,
        result=result,
        result_json=result_json,
        remove_parameters=_paths(result, "remove_parameters"),
        redact_parameters=_paths(result, "redact_parameters"),
        filtered_parameters=_object(result, "filtered_parameters"),
        cache_ttl=_seconds(result, "cache_ttl"),
    )


def _paths(result: dict[str, Json], field: str) -> tuple[tuple[str, ...], ...] | None:
    """Paths in the forms of OPA's `json.remove`: "a/b", with ~1 for / and ~0 for ~ in a step, or ["a", "b"]."""
    stated = result.get(field)
    if stated is None:
        return None
    if type(stated) is not list:
        raise _UnusableError(f"{field} is not an array")
    return tuple(_path(item, field) for item in stated)


def _path(item: Any, field: str) -> tuple[str, ...]:
    if type(item) is str:
        path = tuple(step.replace("~1", "/").replace("~0", "~") for step in item.strip("/").split("/"))
    elif type(item) is list and all(type(step) is str for step in item):
        path = tuple(item)
    else:
        raise _UnusableError(f"{field}: {_NOT_STRINGS}")
    if not path or "" in path:
        raise _UnusableError(f"{field}: {_NOT_STRINGS}")
    return path


def _object(result: dict[str, Json], field: str) -> dict[str, Json] | None:
    stated = result.get(field)
    if stated is None or type(stated) is dict:
        return stated
    raise _UnusableError(f"{field} is not an object")


def _seconds(result: dict[str, Json], field: str) -> Seconds | None:
    stated = result.get(field)
    if stated is None:
        return None
    if type(stated) not in {int, float} or not stated >= 0:
        raise _UnusableError(f"{field} is not a number of seconds")
    try:
        return Seconds(float(stated))
    except OverflowError:
        raise _UnusableError(f"{field} is not a number of seconds") from None
