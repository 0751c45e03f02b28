"""The rows of `audit_checkpoints`: copies of those events that say where a chain stands.

They outlive the events. Each tells the chain value before it, so that with the key it proves itself, and when it was
made, whatever is left around it.
"""

import json
from typing import Final

import msgspec
from msgspec import Struct

from sark_pdp.audit.chain import FIRST
from sark_pdp.audit_writer.columns import UnstorableError, columns_of, microseconds_of, text_of

SELECTED: Final = "json_build_array(id, event_type)::text"
"""Those columns that are compared besides the time, as one text of JSON."""

_NAMES: Final = ("id", "event_type", "timestamp")


class Copy(Struct, frozen=True):
    """What the payload says."""

    source: str
    sequence: int
    id: str
    event_type: str
    time_us: int
    """Since 2000-01-01."""
    before: bytes
    """The chain value of the event before it."""

    def differing(self, source: str, sequence: int, time_us: int | None, stored: str) -> list[str]:
        """A sentence for each column that says otherwise; `stored` is what SELECTED gives."""
        copy = f"the copy of event {sequence} in audit_checkpoints"
        here = (*json.loads(stored), time_us)
        said = (self.id, self.event_type, self.time_us)
        found = [
            f"the column {name} of {copy} is not what its payload says"
            for name, one, other in zip(_NAMES, here, said, strict=True)
            if one != other
        ]
        if (self.source, self.sequence) != (source, sequence):
            found.append(f"{copy} says that it is event {self.sequence} of source {self.source!r}")
        return found


class _Chain(Struct):
    chain: str


class _Follows(Struct):
    details: _Chain


def copy_of(payload: bytes, sequence: int) -> Copy | None:
    """None where that is no event that says where the chain stands."""
    try:
        columns = columns_of(payload)
        # Before the first event of a source there is none.
        before = FIRST if sequence == 1 else bytes.fromhex(msgspec.json.decode(payload, type=_Follows).details.chain)
    except (UnstorableError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    time_us = microseconds_of(columns.timestamp)
    return Copy(columns.source, columns.sequence, str(columns.id), text_of(columns.event_type), time_us, before)
