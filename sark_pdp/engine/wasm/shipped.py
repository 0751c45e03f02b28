"""Machine code of the packed policies that an image brings along: a first start compiles nothing then.

`python -m sark_pdp.engine.wasm.shipped` makes it as the image is built. It lies in the package, which belongs to who
installed it. wasmtime refuses code of another version, configuration or processor: the module is compiled then.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

import wasmtime

_FOLDER: Final = Path(__file__).parent / "shipped"
_FOREIGN_WRITERS: Final = 0o022


def shipped_module(engine: wasmtime.Engine, digest: str, folder: Path = _FOLDER) -> wasmtime.Module | None:
    """None where there is none that can be used."""
    file = folder / f"{digest}.cwasm"
    with contextlib.suppress(OSError, wasmtime.WasmtimeError):
        if all(_trusted(path) for path in (folder, file)):
            return wasmtime.Module.deserialize_file(engine, str(file))
    return None


def _trusted(path: Path) -> bool:
    """Belongs to root or to this user, and nobody else can write it."""
    found = path.stat()
    return found.st_uid in {0, os.geteuid()} and not found.st_mode & _FOREIGN_WRITERS


def _main() -> int:
    # Only here: whoever looks for a module needs none of it.
    from sark_pdp.engine.bundle import read_bundle
    from sark_pdp.engine.wasm.modules import compiled, configured_engine

    packed = Path(__file__).parents[1] / "default_bundle.tar.gz"
    engine = configured_engine()
    _FOLDER.mkdir(mode=0o755, exist_ok=True)
    for module in read_bundle(packed).modules:
        file = _FOLDER / f"{module.digest}.cwasm"
        file.write_bytes(compiled(engine, module.wasm).serialize())
        file.chmod(0o644)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
