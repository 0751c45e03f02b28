"""The sessions that a writer has with its database, each with limits of its own."""

from typing import Final

from psycopg.conninfo import make_conninfo

from sark_pdp.postgres.connections import parse_dsn

WRITING: Final = (
    "-c timezone=UTC -c statement_timeout=25s -c lock_timeout=10s -c idle_in_transaction_session_timeout=25s"
)
"""No batch takes longer than a minute: `hourly` relies on it."""
WRITING_LATE: Final = WRITING.replace("statement_timeout=25s", "statement_timeout=10min")
"""Of events that are days old, which `hourly` does not rely on."""
MAINTAINING: Final = (
    "-c timezone=UTC -c lock_timeout=2s -c idle_in_transaction_session_timeout=25s -c idle_session_timeout=60s"
)
"""Whoever waits for a lock on the table makes all behind it wait, batches too. A writer that stands still, or is cut
off, does not keep its locks."""
ASKING: Final = "-c timezone=UTC -c statement_timeout=30s -c default_transaction_read_only=on"

# A server that is gone without a word is noticed within these, by the kernel.
_DEFAULTS: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def session_of(dsn: str, options: str) -> str:
    """The connection string with these options of a session, which count more than its own. Raises SettingsError."""
    given = parse_dsn(dsn)
    return make_conninfo("", **{**_DEFAULTS, **given, "options": f"{given.get('options', '')} {options}".strip()})
