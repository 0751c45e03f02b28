"""Cases compiled by OPA and by wasmtime; what was compiled once is kept, by content, in a folder that git ignores."""

import json
import re
import subprocess
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import wasmtime

from sark_pdp.engine.wasm.modules import Modules, compiled
from tests.conformance.corpus import ROOT, Case, CorpusError, pinned_version

KEPT: Final = ROOT / ".tools" / "conformance"
OPA: Final = ROOT / ".tools" / "bin" / "opa"

_RULE: Final = re.compile(r"data((?:\.\w+)+) = (?!(?:input|data|true|false|null)\b)([a-z]\w*)")
_PACKAGE: Final = re.compile(r"^package (\w+)", re.MULTILINE)
_WRAPPER: Final = "conformance_query"
_NO_RULE: Final = "does not refer to a rule"
_SLEEP: Final = {
    "name": "test.sleep",
    "decl": {"type": "function", "args": [{"type": "string"}], "result": {"type": "null"}},
}
"""A built-in that only OPA's own tests have."""


class Compiled(msgspec.Struct, frozen=True):
    """A case as a module: the entrypoint, and which variable its result is.

    Without a variable the result is a set of the bindings.
    """

    wasm: bytes
    entrypoint: str
    variable: str | None


class CompileError(CorpusError):
    """OPA refused to compile a case."""


class Compiler:
    """`opa build -t wasm` for one case after the other, and the machine code of what comes out."""

    def __init__(self, engine: wasmtime.Engine, opa: Path = OPA, folder: Path = KEPT) -> None:
        self._engine = engine
        self._opa = opa
        self._version = pinned_version()
        self._folder = folder
        self._machine_code = folder / "compiled"
        self._modules = Modules(engine, self._machine_code)
        self._capabilities = folder / f"capabilities-{self._version}.json"

    def compiled(self, case: Case) -> Compiled:
        """Raises CompileError."""
        rule = _RULE.fullmatch(case.query.strip())
        if rule is not None:
            try:
                name = rule[1][1:].replace(".", "/")
                return Compiled(self._wasm(case.modules, name), name, rule[2])
            except CompileError as error:
                if _NO_RULE not in str(error):
                    raise
        name = f"{_WRAPPER}/bindings"
        return Compiled(self._wasm((*case.modules, _wrapper(case)), name), name, None)

    def module(self, wasm: bytes) -> wasmtime.Module:
        """The module as machine code."""
        self._machine_code.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._machine_code / f"{sha256(wasm).hexdigest()}.cwasm"
        if not file.exists():
            # The engine would start a child for each, which is slow for thousands.
            _write(file, compiled(self._engine, wasm).serialize())
        return self._modules.module(wasm)

    def _wasm(self, modules: tuple[str, ...], entrypoint: str) -> bytes:
        key = sha256(json.dumps([self._version, entrypoint, modules]).encode()).hexdigest()
        file = self._folder / "wasm" / f"{key}.wasm"
        refusal = file.with_suffix(".refused")
        if file.exists():
            return file.read_bytes()
        if refusal.exists():
            raise CompileError(refusal.read_text())
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            wasm = self._build(modules, entrypoint)
        except CompileError as error:
            _write(refusal, str(error).encode())
            raise
        _write(file, wasm)
        return wasm

    def _build(self, modules: tuple[str, ...], entrypoint: str) -> bytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = [f"module-{number}.rego" for number in range(len(modules))]
            for file, text in zip(files, modules, strict=True):
                (folder / file).write_text(text)
            options = [f"--entrypoint={entrypoint}", f"--capabilities={self._allowed()}", "--output=bundle.tar.gz"]
            run = subprocess.run(
                [self._opa, "build", "--target=wasm", *options, *files], cwd=folder, capture_output=True, text=True
            )
            if run.returncode != 0:
                raise CompileError((run.stdout + run.stderr).strip())
            with tarfile.open(folder / "bundle.tar.gz") as archive:
                member = archive.extractfile("/policy.wasm")
                if member is None:
                    raise CompileError("the bundle has no policy.wasm")
                return member.read()

    def _allowed(self) -> Path:
        if not self._capabilities.exists():
            run = subprocess.run([self._opa, "capabilities", "--current"], capture_output=True, check=True)
            capabilities = json.loads(run.stdout)
            capabilities["builtins"].append(_SLEEP)
            _write(self._capabilities, json.dumps(capabilities).encode())
        return self._capabilities


def _wrapper(case: Case) -> str:
    """A module whose rule is the set of the query's bindings."""
    names = sorted({name for bindings in case.want_result or () for name in bindings})
    bindings = ", ".join(f'"{name}": {name}' for name in names)
    query = case.query.strip()
    if query == "data = x":
        # The whole of data would hold this very rule.
        roots = sorted({root for module in case.modules for root in _PACKAGE.findall(module)} | {*(case.data or ())})
        query = "x := {" + ", ".join(f'"{root}": data.{root}' for root in roots) + "}"
    return f"package {_WRAPPER}\n\nbindings contains {{{bindings}}} if {{\n\t{query}\n}}\n"


def _write(file: Path, content: bytes | bytearray) -> None:
    """Whole or not at all, also where two processes write the same."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(content)
    Path(part.name).replace(file)
