"""Applies to a request's own parameters what the policy said about them.

After the decision, so that their values need not be in the cache key.
"""

from collections.abc import Mapping
from typing import Any, Final

from sark_pdp.model import Document, Json, Verdict

REDACTED: Final = "[REDACTED]"


def filtered_parameters(document: Document, verdict: Verdict) -> Mapping[str, Json] | None:
    """The parameters that the call may go on with; None where the policy said nothing about them.

    A path leads through objects, and through arrays by decimal index as in OPA's `json.remove`; one that is not there
    is passed over. What the policy rewrote itself is filtered in the same way. Of parameters that are no object, and so
    cannot be filtered, nothing is left.
    """
    if verdict.remove_parameters is None and verdict.redact_parameters is None and verdict.filtered_parameters is None:
        return None
    parameters = document.get("parameters") if verdict.filtered_parameters is None else verdict.filtered_parameters
    if parameters is None:
        return None
    if type(parameters) is not dict:
        return {}
    filtered: dict[str, Json] = _copied(parameters)
    # Removals last to first: what stands behind in an array keeps its index until its turn has come.
    for path in verdict.redact_parameters or ():
        _change(filtered, path, remove=False)
    for path in sorted(verdict.remove_parameters or (), key=_array_order, reverse=True):
        _change(filtered, path, remove=True)
    return filtered


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) is list:
        return [_copied(item) for item in value]
    return value


def _array_order(path: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((int(step), step) if step.isdecimal() else (0, step) for step in path)


def _change(value: Any, path: tuple[str, ...], *, remove: bool) -> None:
    for step in path[:-1]:
        place = _place(value, step)
        if place is None:
            return
        value = value[place]
    place = _place(value, path[-1])
    if place is None:
        return
    if remove:
        del value[place]
    else:
        value[place] = REDACTED


def _place(value: Any, step: str) -> Any:
    """The key or index that `step` means in `value`; None where there is none."""
    if type(value) is dict:
        return step if step in value else None
    if type(value) is list and step.isdecimal() and int(step) < len(value):
        return int(step)
    return None
