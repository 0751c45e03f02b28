"""Moves what a spool's write-ahead log holds into its database, on a thread of its own.

That syncs the disk, which may take long when others use it: commits go on meanwhile. SQLite would do it with every
thousandth page, in the commit that brought it.
"""

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

PAGE: Final = 4096
MOST_PAGES: Final = 8192
"""Of the log, 32 MiB: what a commit finds to be more it moves itself, as nobody else can end the log while it grows."""

_AT_ONCE: Final = 1000
"""Pages after which the thread has something to do."""


class WalKeeper:
    """For the thread that writes the spool; its own owns a connection and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = 0
        """That were written since the thread was told."""
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def note(self, pages: int) -> None:
        """Some pages were committed; never waits."""
        self._pages += pages
        if self._pages < _AT_ONCE:
            return
        self._pages = 0
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Nothing is moved any more when this returns; `note` may begin anew."""
        if self._thread is None:
            return
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._thread = None

    def _run(self) -> None:
        # What fails here is tried again with the next pages, and told by a commit where it is the disk.
        # It makes no file where there is none.
        place = f"{self._path.absolute().as_uri()}?mode=rw"
        with suppress(sqlite3.Error), closing(sqlite3.connect(place, uri=True, isolation_level=None)) as database:
            while self._wake.wait():
                self._wake.clear()
                if self._stopping:
                    return
                with suppress(sqlite3.Error):
                    database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
