"""Which ids of events were seen, however many: for the checks of a spool and of the stored trail."""

import sqlite3


class Ids:
    """The ids that were seen so far."""

    def __init__(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        database.execute("BEGIN")
        self._execute = database.execute

    def add(self, id_: str) -> bool:
        """False where it was seen before."""
        return self._execute("INSERT OR IGNORE INTO ids VALUES (?)", (id_,)).rowcount == 1
