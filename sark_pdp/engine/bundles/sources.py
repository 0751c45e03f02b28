"""Where bundles come from. A source tells what is there now; what becomes of it is not its business."""

import hashlib
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from sark_pdp.engine.archive import folder_files, read_packed
from sark_pdp.errors import BundleSourceError
from sark_pdp.model import Seconds


class Versions(Struct, frozen=True):
    """What was delivered before, in the source's own words; empty: nothing."""

    active: str = ""
    seen: str = ""
    """The last, whether it could be activated or not."""
    whole: bool = False
    """Ask for a whole bundle: no more deltas are taken."""


class Delivery(Struct, frozen=True):
    """What is there now."""

    packed: bytes | None
    """A bundle, or a delta of one; None where it is a version that is known."""
    version: str
    """Empty where the source does not know."""


class InterruptedFetchError(Exception):
    """`interrupt` was called."""


class Source(Protocol):
    """One place that a bundle comes from. One thread fetches, any thread interrupts."""

    label: str
    """What messages call it."""

    def fetch(self, known: Versions, wait: Seconds) -> Delivery:
        """What is there now.

        With `wait` above zero it may take as long to see whether something changes. Raises BundleError, and
        InterruptedFetchError.
        """

    def interrupt(self) -> None:
        """Ends a fetch that waits, or else the next one."""


class FileSource:
    """An archive, or a folder with the files of a bundle; looked at, and read where it changed."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.label = str(path)
        self._path = path
        self._max_bytes = max_bytes

    def fetch(self, known: Versions, wait: Seconds) -> Delivery:
        """Never waits."""
        del wait
        try:
            version = self._version()
            if version == known.seen:
                return Delivery(None, version)
            packed = read_packed(self._path, self._max_bytes)
            # Changed while it was read: what was read may be half of the one and half of the other.
            return Delivery(packed, version if version == self._version() else "")
        except FileNotFoundError:
            raise BundleSourceError(f"bundle {self.label}: there is no such file") from None
        except OSError as error:
            raise BundleSourceError(f"bundle {self.label}: cannot be read: {error.strerror or error}") from None

    def interrupt(self) -> None:
        """There is nothing that waits."""

    def _version(self) -> str:
        if not self._path.is_dir():
            return mark_of(self._path)
        marks = "\n".join(f"{name} {mark_of(file)}" for name, file in folder_files(self._path))
        return hashlib.sha256(marks.encode("utf-8", "surrogateescape")).hexdigest()


def mark_of(file: Path) -> str:
    """Changes with each change of the file, and where another takes its place."""
    found = file.stat()
    # The time of a change can be set back, as tools that copy do; that of the status cannot.
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
