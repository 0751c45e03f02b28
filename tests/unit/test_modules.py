"""Machine code on disk: made once, by a child, and run only where nobody else could have written it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from sark_pdp.engine.wasm import modules as under_test
from sark_pdp.engine.wasm.modules import Modules, configured_engine
from sark_pdp.errors import BundleError

WASM = bytes(wasmtime.wat2wasm('(module (func (export "seven") (result i32) i32.const 7))'))
OTHER = bytes(wasmtime.wat2wasm('(module (func (export "seven") (result i32) i32.const 8))'))


@pytest.fixture
def engine() -> wasmtime.Engine:
    return configured_engine()


class Compiler:
    """Counts what was compiled by children and what in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.children = 0
        self.here = 0
        child, here = under_test._compile_in_child, under_test.compiled

        def count_child(wasm: bytes, file: Path) -> None:
            self.children += 1
            child(wasm, file)

        def count_here(engine: wasmtime.Engine, wasm: bytes) -> wasmtime.Module:
            self.here += 1
            return here(engine, wasm)

        monkeypatch.setattr(under_test, "_compile_in_child", count_child)
        monkeypatch.setattr(under_test, "compiled", count_here)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


def run(engine: wasmtime.Engine, module: wasmtime.Module) -> int:
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1)
    function = wasmtime.Instance(store, module, []).exports(store)["seven"]
    assert isinstance(function, wasmtime.Func)
    result: int = function(store)
    return result


def kept(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_the_second_load_compiles_nothing(engine: wasmtime.Engine, compiler: Compiler, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "compiled"
    assert run(engine, Modules(engine, folder).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 0)
    # Another process, which has an engine of its own.
    later = configured_engine()
    assert run(later, Modules(later, folder).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 0)
    assert run(engine, Modules(engine, folder).module(OTHER)) == 8
    assert compiler.children == 2
    assert [file.suffix for file in kept(folder)] == [".cwasm", ".cwasm"]


def test_what_is_kept_is_for_this_user_alone(engine: wasmtime.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "compiled"
    Modules(engine, folder).module(WASM)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in kept(folder)] == [0o600]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o702, 0o720])
def test_a_folder_that_others_may_write_to_is_not_used(
    engine: wasmtime.Engine, compiler: Compiler, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    folder = tmp_path / "compiled"
    Modules(engine, folder).module(WASM)
    folder.chmod(mode)
    assert run(engine, Modules(engine, folder).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 1)
    _require_one_warning(caplog, "must belong to this user and be writable by nobody else")


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o622])
def test_a_file_that_others_may_write_to_is_not_run(
    engine: wasmtime.Engine, compiler: Compiler, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    Modules(engine, tmp_path).module(WASM)
    [file] = kept(tmp_path)
    file.chmod(mode)
    assert run(engine, Modules(engine, tmp_path).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 1)
    _require_one_warning(caplog, str(file))


def test_a_folder_of_another_user_is_not_used(
    engine: wasmtime.Engine,
    compiler: Compiler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Modules(engine, tmp_path).module(WASM)
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert run(engine, Modules(engine, tmp_path).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 1)
    _require_one_warning(caplog, f"{tmp_path} must belong to this user")


@pytest.mark.parametrize("damage", ["empty", "zeros", "text", "half", "foreign"])
def test_a_damaged_file_is_made_anew(engine: wasmtime.Engine, compiler: Compiler, tmp_path: Path, damage: str) -> None:
    Modules(engine, tmp_path).module(WASM)
    [file] = kept(tmp_path)
    whole = file.read_bytes()
    contents = {
        "empty": b"",
        "zeros": bytes(len(whole)),
        "text": b"#!/bin/sh\n",
        "half": whole[: len(whole) // 2],
        "foreign": _compiled_otherwise(),
    }
    file.write_bytes(contents[damage])
    assert run(engine, Modules(engine, tmp_path).module(WASM)) == 7
    assert compiler.children == 2
    assert file.read_bytes() == whole


def _compiled_otherwise() -> bytes:
    """Machine code without the checks of the epoch: it could not be interrupted."""
    return bytes(wasmtime.Module(wasmtime.Engine(), WASM).serialize())


def test_where_nothing_can_be_kept_each_start_compiles(
    engine: wasmtime.Engine, compiler: Compiler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert run(engine, Modules(engine, tmp_path / "file" / "compiled").module(WASM)) == 7
    assert (compiler.children, compiler.here) == (0, 1)
    _require_one_warning(caplog, "Not a directory")


def test_where_the_child_fails_the_process_compiles_itself(
    engine: wasmtime.Engine,
    compiler: Compiler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run(engine, Modules(engine, tmp_path).module(WASM)) == 7
    assert (compiler.children, compiler.here) == (1, 1)
    _require_one_warning(caplog, "the compiling child ended with 1: no message")


def test_the_child_runs_nothing_that_lies_in_the_current_folder(
    engine: wasmtime.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "wasmtime.py").write_text(f"open({str(planted / 'ran')!r}, 'w')")
    monkeypatch.chdir(planted)
    assert run(engine, Modules(engine, tmp_path / "compiled").module(WASM)) == 7
    assert (caplog.records, (planted / "ran").exists()) == ([], False)


def test_a_compilation_without_end_is_refused(
    engine: wasmtime.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", run_out)
    with pytest.raises(BundleError, match="takes longer than 120 s to compile"):
        Modules(engine, tmp_path).module(WASM)


def test_what_is_no_module_is_refused_by_child_and_process_alike(engine: wasmtime.Engine, tmp_path: Path) -> None:
    for folder in (tmp_path, None):
        with pytest.raises(BundleError, match=r"^the module is not valid WebAssembly$"):
            Modules(engine, folder).module(WASM[:-3])
    assert kept(tmp_path) == []


def _require_one_warning(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "compiled policies cannot be kept; each start compiles them"
    assert reason in record.__dict__["reason"]


def test_of_what_is_no_longer_used_the_last_few_are_kept(tmp_path: Path, engine: wasmtime.Engine) -> None:
    modules = Modules(engine, tmp_path)
    kept = modules.module(WASM)
    (active,) = tmp_path.iterdir()
    abandoned, growing = tmp_path / "a.1.part", tmp_path / "b.2.part"
    former = [tmp_path / f"{number:064x}.cwasm" for number in range(12)]
    for number, file in enumerate([abandoned, *former]):
        file.touch()
        os.utime(file, (1_000_000 + number, 1_000_000 + number))
    growing.touch()
    modules.tidy(frozenset({active.stem}))
    assert sorted(tmp_path.iterdir()) == sorted([active, growing, *former[-8:]])
    assert modules.module(WASM) is kept


def test_the_same_module_is_made_once_while_it_is_used(
    tmp_path: Path, engine: wasmtime.Engine, compiler: Compiler
) -> None:
    modules = Modules(engine, tmp_path)
    first = modules.module(WASM)
    for file in tmp_path.iterdir():
        file.unlink()
    assert modules.module(WASM) is first
    assert compiler.children == 1
    del first
    modules.module(WASM)
    assert compiler.children == 2
