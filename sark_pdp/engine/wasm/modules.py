"""Compiled modules, kept on disk: a restart compiles nothing, and the memory that compiling takes is a child's.

A file is machine code that this process will run, so its folder and each file must belong to this user and be
writable by nobody else. wasmtime itself refuses code of another version, configuration or processor. Of modules that
are no longer used the last few are kept, for a way back.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import wasmtime

from sark_pdp.engine.wasm.shipped import shipped_module
from sark_pdp.errors import BundleError

_COMPILE_SECONDS: Final = 120.0
_FOREIGN_WRITERS: Final = 0o022
_NICENESS: Final = 19
_KEPT: Final = 8
"""Modules that are on disk and in no use."""

_log = logging.getLogger(__name__)


def configured_engine() -> wasmtime.Engine:
    """The engine that compiles and runs; child and parent must have the same."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    # Instances keep the address of their memory.
    config.memory_may_move = False
    return wasmtime.Engine(config)


class Modules:
    """Compiles, or finds what was compiled before. `folder` is created where it is missing."""

    def __init__(self, engine: wasmtime.Engine, folder: Path | None) -> None:
        """Without a folder each module is compiled in this process."""
        self._engine = engine
        self._folder = folder
        # Those in use, by digest: the same module with other data is neither read nor compiled again.
        self._used: WeakValueDictionary[str, wasmtime.Module] = WeakValueDictionary()

    def module(self, wasm: bytes) -> wasmtime.Module:
        """Raises BundleError where it is not WebAssembly."""
        digest = sha256(wasm).hexdigest()
        module = self._used.get(digest)
        if module is None:
            module = self._used[digest] = self._made(wasm, digest)
        return module

    def tidy(self, active: frozenset[str]) -> None:
        """Removes what nobody uses any more: all but the modules with these digests, and the last few others."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._tidy(self._folder, active)

    def _made(self, wasm: bytes, digest: str) -> wasmtime.Module:
        if (module := shipped_module(self._engine, digest)) is not None:
            return module
        if self._folder is not None:
            try:
                return self._kept(self._folder, wasm, digest)
            except OSError as error:
                _log.warning(
                    "compiled policies cannot be kept; each start compiles them",
                    extra={"folder": str(self._folder), "reason": str(error)},
                )
        return compiled(self._engine, wasm)

    def _kept(self, folder: Path, wasm: bytes, digest: str) -> wasmtime.Module:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own(folder)
        file = folder / f"{digest}.cwasm"
        if file.exists():
            require_own(file)
            # Another version of wasmtime, or a damaged file: it is made anew.
            with contextlib.suppress(wasmtime.WasmtimeError):
                module = wasmtime.Module.deserialize_file(self._engine, str(file))
                # `tidy` keeps what was used last.
                os.utime(file)
                return module
        _compile_in_child(wasm, file)
        return wasmtime.Module.deserialize_file(self._engine, str(file))

    def _tidy(self, folder: Path, active: frozenset[str]) -> None:
        unused = [file for file in folder.glob("*.cwasm") if file.stem not in active]
        unused.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        # What a child left that was killed; one that lives may still write to its own.
        abandoned = time.time() - 2 * _COMPILE_SECONDS
        for file in (*unused[_KEPT:], *folder.glob("*.part")):
            if file.suffix == ".cwasm" or file.stat().st_mtime < abandoned:
                file.unlink(missing_ok=True)


def compiled(engine: wasmtime.Engine, wasm: bytes) -> wasmtime.Module:
    """Compiles in this process. Raises BundleError where it is not WebAssembly."""
    try:
        return wasmtime.Module(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise BundleError("the module is not valid WebAssembly") from error


def require_own(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & _FOREIGN_WRITERS:
        raise PermissionError(f"{path} must belong to this user and be writable by nobody else")


def _compile_in_child(wasm: bytes, file: Path) -> None:
    try:
        child = subprocess.run(  # noqa: S603  # this interpreter, this module
            # -P: -m would put the current folder before all others, and run whatever is named like a module there.
            [sys.executable, "-P", "-m", __name__, str(file)],
            input=wasm,
            capture_output=True,
            timeout=_COMPILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BundleError(f"the module takes longer than {_COMPILE_SECONDS:.0f} s to compile") from None
    if child.returncode == _NOT_WASM:
        raise BundleError("the module is not valid WebAssembly")
    if child.returncode != 0:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"the compiling child ended with {child.returncode}: {lines[-1] if lines else 'no message'}")


_NOT_WASM: Final = 3


def _main(file: Path) -> int:
    """Compiles standard input into `file`, which appears whole or not at all."""
    os.umask(0o077)
    os.nice(_NICENESS)
    try:
        module = compiled(configured_engine(), sys.stdin.buffer.read())
    except BundleError:
        return _NOT_WASM
    part = file.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as opened:
        opened.write(module.serialize())
        # Else a power loss could leave the name with half of the code, which wasmtime might run.
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
