"""The last good bundle of a source, on disk: a sidecar that starts while the server is away begins with it.

A file holds the archives as they were delivered, signatures included, which are verified again. It is what this process
will decide by, so its folder and the file must belong to this user and be writable by nobody else.
"""

import logging
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from sark_pdp.engine.wasm.modules import require_own

_VERSION: Final = 1

_log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """What is kept of one bundle."""

    label: str
    """Of the source that it came from; what came from another one does not count."""
    version: str
    """The source's own word for it, an ETag."""
    archives: tuple[bytes, ...]
    format: int = _VERSION


class Keeper:
    """One file in a folder, which is created where it is missing."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._file = folder / f"{quote(name, safe='')}.bundle"

    def load(self, label: str) -> Kept | None:
        """What was kept of this source; None where there is nothing, or nothing that can be trusted."""
        try:
            if not self._file.exists():
                return None
            require_own(self._folder)
            require_own(self._file)
            kept = msgspec.msgpack.decode(self._file.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("a kept bundle is not used", extra={"file": str(self._file), "reason": str(error)})
            return None
        return kept if (kept.label, kept.format) == (label, _VERSION) else None

    def store(self, kept: Kept) -> None:
        """Replaces what was kept; a failure is logged, for what is active does not depend on it."""
        part = self._file.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own(self._folder)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
                opened.write(msgspec.msgpack.encode(kept))
                opened.flush()
                os.fsync(opened.fileno())
            part.replace(self._file)
        except OSError as error:
            part.unlink(missing_ok=True)
            _log.warning("a bundle cannot be kept", extra={"file": str(self._file), "reason": str(error)})
