"""The columns of an event, made of its payload, and its row as PostgreSQL's binary COPY takes it.

The function is total for whatever names an event: text is cut at 512 characters and NUL becomes U+FFFD, for no index
and no text of PostgreSQL takes more; an address that does not parse, details that jsonb cannot hold and a value of
another type are NULL. The payload itself is stored beside them byte for byte.
"""

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from sark_pdp.audit.source import CHECKPOINT, STARTED, STOPPED
from sark_pdp.errors import AuditError
from sark_pdp.model import Json

NAMES: Final = (
    *("id", "timestamp", "source", "sequence", "chain", "payload", "event_type", "severity"),
    *("user_id", "user_email", "server_id", "tool_name", "decision", "policy_id", "policy_revision"),
    *("ip_address", "user_agent", "request_id", "details"),
)
"""Of `audit_events`, in the order of a row."""

COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END: Final = b"\xff\xff"
"""What comes before and after the rows: <https://www.postgresql.org/docs/current/sql-copy.html>, Binary Format."""

MOST_CHARACTERS: Final = 512
"""Of a text column: an index entry of more than 2,704 bytes is refused."""

_DEEPEST: Final = 1000
"""Levels of JSON: jsonb refuses what would overflow the server's stack, which has room for many times as many."""
_TEXTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")
_ANCHORS: Final = frozenset({STARTED, STOPPED, CHECKPOINT})
_NULL: Final = b"\xff\xff\xff\xff"
_FIELDS: Final = len(NAMES).to_bytes(2)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 86_400_000_000
FIRST_US: Final = -63_082_281_600_000_000
LAST_US: Final = 252_455_615_999_999_999
"""Of the years 1 and 9999, UTC: with its zone a time may be outside, which no day and no answer can name."""
_UUID_BYTES: Final = (16).to_bytes(4)
_INT8_BYTES: Final = (8).to_bytes(4)
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class UnstorableError(AuditError):
    """A payload that names no event, or another one than what it came as."""


class Row(Struct, frozen=True, gc=False):
    """One event, ready to be written."""

    key: bytes
    """The id: 16 bytes, which sort as PostgreSQL sorts a uuid."""
    time_us: int
    """Microseconds since 2000-01-01, UTC: PostgreSQL's own form of a timestamp."""
    source: str
    sequence: int
    chain: bytes
    payload: bytes
    anchor: bool
    """Whether the event says where a chain stands, so that a copy outlives the retention."""
    copied: bytes
    """The row in the binary form of COPY."""

    @property
    def day(self) -> int:
        """Whole days from 2000-01-01, UTC."""
        return self.time_us // _DAY_US


class Columns(Struct, frozen=True, gc=False):
    """What of the columns is not text or bytes that are stored as they came."""

    id: UUID
    timestamp: datetime
    source: str
    sequence: int
    event_type: str = ""
    severity: str = ""
    user_id: str | None = None
    user_email: str | None = None
    server_id: str | None = None
    tool_name: str | None = None
    decision: str | None = None
    policy_id: str | None = None
    policy_revision: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    details: msgspec.Raw = msgspec.Raw(b"null")


_decoder: Final = msgspec.json.Decoder(Columns)


def row_of(source: str, sequence: int, chain: bytes, payload: bytes) -> Row:
    """The row of an event that came as number `sequence` of `source`. Raises UnstorableError."""
    columns = columns_of(payload)
    if columns.source != source or columns.sequence != sequence:
        raise UnstorableError(
            f"the payload says that it is event {columns.sequence} of source {columns.source[:MOST_CHARACTERS]!r}"
        )
    time_us = microseconds_of(columns.timestamp)
    if not FIRST_US <= time_us <= LAST_US:
        raise UnstorableError("the payload's time is outside the years 1 to 9999, UTC")
    details = details_of(columns)
    key = columns.id.bytes
    address = columns.ip_address
    event_type = columns.event_type
    copied = b"".join(
        (
            _FIELDS,
            _UUID_BYTES,
            key,
            _INT8_BYTES,
            time_us.to_bytes(8, signed=True),
            _common(source),
            _INT8_BYTES,
            sequence.to_bytes(8),
            len(chain).to_bytes(4),
            chain,
            len(payload).to_bytes(4),
            payload,
            _common(event_type),
            _common(columns.severity),
            _common(columns.user_id),
            _common(columns.user_email),
            _common(columns.server_id),
            _common(columns.tool_name),
            _common(columns.decision),
            _common(columns.policy_id),
            _common(columns.policy_revision),
            _NULL if address is None else _address(address),
            _common(columns.user_agent),
            _text(columns.request_id),
            # Version 1 of jsonb's binary form.
            _NULL if details is None else b"".join(((len(details) + 1).to_bytes(4), b"\x01", details)),
        )
    )
    return Row(key, time_us, source, sequence, chain, payload, event_type in _ANCHORS, copied)


def columns_of(payload: bytes) -> Columns:
    """The columns as the payload has them, uncut. Raises UnstorableError where no id, time, source or number is."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _odd(payload)


def text_of(value: str) -> str:
    """A text as its column holds it."""
    if len(value) > MOST_CHARACTERS:
        value = value[:MOST_CHARACTERS]
    return value.replace("\0", _REPLACEMENT) if "\0" in value else value


def details_of(columns: Columns) -> bytes | None:
    """JSON that jsonb can hold; None where there is none."""
    raw = bytes(columns.details)
    if raw == b"null" or _is_too_deep(raw):
        return None
    # Only an escape can stand for a NUL or for half a character.
    if b"\\u" not in raw and raw.isascii():
        return raw
    try:
        decoded = msgspec.json.decode(raw)
        return msgspec.json.encode(_clean(decoded)) if b"\\u0000" in raw else raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_too_deep(raw: bytes) -> bool:
    if len(raw) <= 2 * _DEEPEST or raw.count(b"[") + raw.count(b"{") <= _DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _DEEPEST:
            return True
    return False


def microseconds_of(point: datetime) -> int:
    """Since 2000-01-01, UTC; a time without a zone is in UTC."""
    return ((point if point.tzinfo else point.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def _odd(payload: bytes) -> Columns:
    """The columns of a payload some of which are of another type, or that is not all UTF-8."""
    try:
        found = msgspec.json.decode(payload.decode("utf-8", "replace"), strict=False)
        named = msgspec.convert({name: found[name] for name in ("id", "timestamp", "source", "sequence")}, _Named)
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UnstorableError("the payload is no JSON object with id, timestamp, source and sequence") from error
    texts: dict[str, Any] = {
        name: value
        for name, value in found.items()
        if name in Columns.__struct_fields__ and type(value) is str and name not in _Named.__struct_fields__
    }
    texts.pop("details", None)
    details = found.get("details")
    return Columns(
        named.id,
        named.timestamp,
        named.source,
        named.sequence,
        **texts,
        details=msgspec.Raw(msgspec.json.encode(details)),
    )


class _Named(Struct):
    """What no event is without."""

    id: UUID
    timestamp: datetime
    source: str
    sequence: int


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    raw = text_of(value).encode("utf-8", "replace")
    return len(raw).to_bytes(4) + raw


_cached: Final = lru_cache(maxsize=8192)(_text)


def _common(value: str | None) -> bytes:
    """For columns whose values come again; the cache keeps what it is asked for, so nothing long."""
    return _cached(value) if value is None or len(value) <= MOST_CHARACTERS else _text(value)


def _address(address: str) -> bytes:
    return _cached_inet(address) if len(address) <= MOST_CHARACTERS else _inet(address)


def _inet(address: str) -> bytes:
    """The binary form of `inet`: family, bits, not a cidr, size, address (network_recv of PostgreSQL)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return _NULL
    packed = parsed.packed
    family = 2 if parsed.version == 4 else 3
    return (4 + len(packed)).to_bytes(4) + bytes((family, parsed.max_prefixlen, 0, len(packed))) + packed


_cached_inet: Final = lru_cache(maxsize=8192)(_inet)


def _clean(value: Json) -> Json:
    if type(value) is str:
        return value.replace("\0", _REPLACEMENT)
    if type(value) is dict:
        return {_clean(key): _clean(below) for key, below in value.items()}
    if type(value) is list:
        return [_clean(below) for below in value]
    return value
