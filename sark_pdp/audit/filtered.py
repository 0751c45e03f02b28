"""The event of a `Filter`: one principal, one action, many resources."""

from typing import Final

from sark_pdp.audit.mask import Changes, Mask
from sark_pdp.audit.subjects import Subjects, text_of
from sark_pdp.model import Document, FilterRecord, Json, Origin, Outcome

DECISIONS: Final = {
    Outcome.ALLOW: "allow",
    Outcome.DENY: "deny",
    Outcome.UNDEFINED: "undefined",
    Outcome.ERROR: "error",
}
_NAMES: Final = ("id", "name", "uri")
_COLUMNS: Final = {"tool": "tool_name", "server": "server_id", "resource": "tool_name", "prompt": "tool_name"}


def filtered(record: FilterRecord, mask: Mask, origin: Origin, subjects: Subjects) -> tuple[Outcome, dict[str, Json]]:
    """One decision about many resources, and its details: allowed where any is, for then there is something to see.

    The input is kept once without its resource, the resources beside it in the order of the request: together they are
    the input of each decision.
    """
    field, changes = record.resource_field, Changes([], [])
    allowed: list[Json] = []
    refused: list[Json] = []
    resources: list[Json] = []
    common: Document = {}
    outcomes = set()
    for index, (request, decision) in enumerate(zip(record.requests, record.decisions, strict=False)):
        common = decision.projected
        resources.append(mask.below(field, common.get(field), changes, f"/resources/{index}"))
        name = _name(mask, request.document, field, index)
        outcome = decision.verdict.outcome
        outcomes.add(outcome)
        if outcome is Outcome.ALLOW:
            allowed.append(name)
        else:
            reason = mask.column("reason", decision.verdict.reason) or ""
            refused.append({"resource": name, "decision": DECISIONS[outcome], "reason": reason})
    details: dict[str, Json] = {
        "reason": f"{len(allowed)} of {len(resources)} allowed",
        "resource_field": field,
        "allowed": allowed,
        "refused": refused,
        "latency_ns": record.latency_ns,
    }
    if subjects.action is not None:
        details["action"] = subjects.action
    if origin.identity:
        details["peer"] = origin.identity
    if origin.uid is not None:
        details["peer_uid"] = origin.uid
    if record.requests[0].trace_id:
        details["trace_id"] = record.requests[0].trace_id
    told = mask.input({key: value for key, value in common.items() if key != field}, changes)
    if changes.erased:
        details["erased"] = changes.erased
    if changes.masked:
        details["masked"] = changes.masked
    details["input"] = told
    details["resources"] = resources
    first = (o for o in (Outcome.ALLOW, Outcome.ERROR, Outcome.DENY) if o in outcomes)
    return next(first, Outcome.UNDEFINED), details


def _name(mask: Mask, document: Document, field: str, index: int) -> str:
    """What a reader knows a resource by: its id, its name or its URI, masked as in an input; else its place."""
    resource = document.get(field)
    if type(resource) is dict:
        resource = {name: resource[name] for name in _NAMES if name in resource}
    told = mask.below(field, resource, Changes([], []), "")
    named = told if type(told) is dict else {"id": told}
    name = next(filter(None, (text_of(named.get(name)) for name in _NAMES)), None)
    return mask.column(_COLUMNS[field], name) or f"#{index}"
