"""What a `Filter` selects, as SQL; and page tokens, which name the last event of a page and what was asked."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg import sql

from sark_pdp.audit_writer.columns import text_of
from sark_pdp.errors import InvalidRequestError

if TYPE_CHECKING:
    from sark_pdp._proto import audit_pb2

_TEXTS: Final = ("event_type", "user_id", "server_id", "tool_name", "decision", "source")
_TOKEN_BYTES: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Position = tuple[datetime, UUID]
"""Time and id of an event: what events are ordered by, newest first."""


def conditions(
    wanted: "audit_pb2.Filter", time_column: str, texts: tuple[str, ...] = _TEXTS
) -> tuple[list[Any], list[Any]]:
    """Conditions to be joined by AND, and their parameters. Raises InvalidRequestError, which names the field."""
    found: list[Any] = []
    parameters: list[Any] = []
    for name, operator in (("since", ">="), ("until", "<")):
        value = getattr(wanted, name)
        if value:
            found.append(sql.SQL("{} {} %s").format(sql.Identifier(time_column), sql.SQL(operator)))
            parameters.append(_point(name, value))
    for name in _TEXTS:
        value = getattr(wanted, name)
        if value and name not in texts:
            raise InvalidRequestError(f"filter.{name}", f"counts know only {' and '.join(texts)}; leave it empty")
        if value:
            found.append(sql.SQL("{} = %s").format(sql.Identifier(name)))
            parameters.append(text_of(value))
    return found, parameters


def where(found: list[Any]) -> "sql.Composed":
    """The clause, true where there is no condition."""
    return sql.SQL("WHERE {}").format(sql.SQL(" AND ").join([sql.SQL("true"), *found]))


def token_of(wanted: "audit_pb2.Filter", position: Position) -> str:
    """What asks for the events after this one."""
    time, id_ = position
    passed = time - _EPOCH
    microseconds = (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
    return urlsafe_b64encode(_digest(wanted) + microseconds.to_bytes(8, signed=True) + id_.bytes).decode().rstrip("=")


def position_of(wanted: "audit_pb2.Filter", token: str) -> Position:
    """What the token names. Raises InvalidRequestError for one that was not given for this filter."""
    problem = InvalidRequestError("page_token", "expected the next_page_token of a page with the same filter")
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raise problem from None
    if len(raw) != _TOKEN_BYTES or raw[:8] != _digest(wanted):
        raise problem
    try:
        return _EPOCH + timedelta(microseconds=int.from_bytes(raw[8:16], signed=True)), UUID(bytes=raw[16:])
    except OverflowError:
        raise problem from None


def _digest(wanted: "audit_pb2.Filter") -> bytes:
    return hashlib.blake2b(wanted.SerializeToString(deterministic=True), digest_size=8).digest()


def _point(name: str, value: str) -> datetime:
    try:
        point = datetime.fromisoformat(value)
        if point.tzinfo is None:
            raise ValueError("has no zone")
        return point.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequestError(f"filter.{name}", "expected RFC 3339, as in 2026-01-31T12:00:00Z") from None
