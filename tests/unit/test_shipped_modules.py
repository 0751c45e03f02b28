"""Machine code that an image brings along: taken where only root or this user could have written it."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import wasmtime

from sark_pdp.engine.wasm.modules import compiled, configured_engine
from sark_pdp.engine.wasm.shipped import shipped_module

WASM = bytes(wasmtime.wat2wasm('(module (func (export "seven") (result i32) i32.const 7))'))
DIGEST = sha256(WASM).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As it was shipped."""
    file = tmp_path / f"{DIGEST}.cwasm"
    file.write_bytes(compiled(configured_engine(), WASM).serialize())
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    return tmp_path


def test_what_was_shipped_is_run(folder: Path) -> None:
    engine = configured_engine()
    module = shipped_module(engine, DIGEST, folder)

    assert module is not None
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1)
    seven = wasmtime.Instance(store, module, []).exports(store)["seven"]
    assert isinstance(seven, wasmtime.Func)
    assert seven(store) == 7


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / f"{DIGEST}.cwasm").unlink(), id="another module"),
        pytest.param(lambda folder: (folder / f"{DIGEST}.cwasm").chmod(0o666), id="a file that others may write"),
        pytest.param(lambda folder: folder.chmod(0o777), id="a folder that others may write to"),
        pytest.param(lambda folder: (folder / f"{DIGEST}.cwasm").write_bytes(b"x" * 5000), id="no machine code"),
    ],
)
def test_anything_else_is_left_alone(folder: Path, spoil: Callable[[Path], object]) -> None:
    """Then it is compiled, as without an image."""
    spoil(folder)

    assert shipped_module(configured_engine(), DIGEST, folder) is None
    folder.chmod(0o755)


def test_without_an_image_there_is_none(tmp_path: Path) -> None:
    assert shipped_module(configured_engine(), DIGEST, tmp_path / "nowhere") is None
