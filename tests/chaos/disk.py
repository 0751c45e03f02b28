"""A disk that can be filled: a small file system in memory, mounted where only this process and its children see it."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SIZE: Final = 64 << 20
"""Bytes: some minutes of events."""
_INSIDE: Final = "SARK_CHAOS_MOUNTS"
"""Set where mounts are this process' own."""
_PIECES: Final = (1 << 20, 4096, 1)


def enter_own_mounts(module: str, arguments: Sequence[str]) -> str:
    """Runs the module anew where mounts are its own, and does not return; or returns why that cannot be.

    Empty where it is so already.
    """
    if _INSIDE in os.environ:
        return ""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "to mount a small file system takes root on Linux"
    unshare = shutil.which("unshare")
    command = [unshare or "", "--mount", "--propagation=private"]
    if not unshare or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return "this system does not let a process have mounts of its own"
    os.environ[_INSIDE] = "1"
    return os.execv(unshare, [*command, sys.executable, "-m", module, *arguments])  # noqa: S606 (it does not return)


class Disk:
    """A folder that a sidecar keeps its spool in."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        """Makes the folder; `mounted` makes it a file system of its own, of SIZE bytes."""
        folder.mkdir()
        self.folder = folder
        self._filler = folder / "filler"
        self._mounted = mounted
        if mounted:
            options = f"size={SIZE},mode=700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sark-chaos", folder], check=True)

    def fill(self) -> None:
        """Until not a single byte more can be written."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in _PIECES:
                piece = bytes(size)
                while _written(filler.fileno(), piece):
                    pass

    def free(self) -> None:
        """As before."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Nobody uses it any more: what is in it is gone."""
        if self._mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)
            self._mounted = False


def _written(descriptor: int, piece: bytes) -> bool:
    """False where the disk is full."""
    try:
        return os.write(descriptor, piece) > 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
