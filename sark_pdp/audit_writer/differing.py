"""Compares the columns of a stored event with what its payload makes of them."""

import ipaddress
import json
from decimal import Decimal
from typing import Any, Final

from sark_pdp.audit_writer.columns import UnstorableError, columns_of, details_of, microseconds_of, text_of

_TEXTS: Final = (
    *("event_type", "severity", "user_id", "user_email", "server_id", "tool_name", "decision"),
    *("policy_id", "policy_revision", "user_agent", "request_id"),
)
SELECTED: Final = (
    f"json_build_array(id, {', '.join(_TEXTS)}, host(ip_address), masklen(ip_address), details::text)::text"
)
"""Those columns that are compared, as one text of JSON: whatever they hold, it can be read."""


def differing(payload: bytes, time_us: int | None, stored: str) -> list[str]:
    """The names of the columns that are not what the payload says; none for a payload that names no event.

    `time_us` is the column `timestamp` in microseconds since 2000-01-01; `stored` is what SELECTED gives.
    """
    try:
        columns = columns_of(payload)
    except UnstorableError:
        return []
    id_, *texts, host, bits, details = json.loads(stored)
    found = [] if id_ == str(columns.id) else ["id"]
    if time_us != microseconds_of(columns.timestamp):
        found.append("timestamp")
    for name, text in zip(_TEXTS, texts, strict=True):
        said = getattr(columns, name)
        if text != (None if said is None else text_of(said)):
            found.append(name)
    address = _address(columns.ip_address)
    if _address(host) != address or (address is not None and bits != 8 * len(address)):
        found.append("ip_address")
    if not _same(details_of(columns), details):
        found.append("details")
    return found


def _address(text: str | None) -> bytes | None:
    """Its bytes: PostgreSQL and Python write some addresses differently."""
    try:
        return None if text is None else ipaddress.ip_address(text).packed
    except ValueError:
        return None


def _same(said: bytes | None, stored: str | None) -> bool:
    if said is None or stored is None:
        return said is None and stored is None
    try:
        return bool(_read(said) == _read(stored))
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _read(text: bytes | str) -> Any:
    """JSON with numbers as jsonb has them: exact, and never equal to true or false."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)
