"""What an audit trail looks like from outside."""

from msgspec import Struct


class Statistics(Struct, frozen=True):
    """What the queue and its spool look like at one moment."""

    source: str
    """Empty where nothing is recorded."""
    queued: int
    """Records that are not committed yet."""
    capacity: int
    dropped: int
    """Records that were lost since the start."""
    sequence: int
    """Of the last event that is committed."""
    commits: int
    spool_bytes: int
    """As counted lately: it may be some 1 MiB behind."""
    spool_max_bytes: int
    problem: str
    """Why nothing is committed at present; empty where all is well."""
    ships: bool = False
    """Whether events are shipped to an audit writer."""
    shipped: int = 0
    """Events that an audit writer has acknowledged since the start."""
    lag_seconds: float = 0.0
    """The age of the oldest event that was sent and is not acknowledged."""
    shipping_problem: str = ""
    """Why nothing is shipped at present; empty where all is well."""
