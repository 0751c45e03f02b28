"""Runs OPA's own command line, which compiles Rego; used to build bundles, never to decide."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from sark_pdp.engine.archive import MAX_BYTES, read_archive
from sark_pdp.errors import BundleError
from sark_pdp.projection import Path as JsonPath

VERSION = "1.22.2"
"""The release that bundles here are built and tested with; another one compiles to other bytes."""

_STEP = re.compile(r'\.([A-Za-z_]\w*)|\["((?:[^"\\]|\\.)*)"\]')


class OpaError(BundleError):
    """OPA refused the policies; `output` is all that it said, for the person who wrote them."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class Annotation(Struct, frozen=True):
    """An `entrypoint: true` in the metadata of a rule or package."""

    entrypoint: str
    file: Path
    row: int
    """The line, from 1, of the rule or package that it belongs to."""


class Inspection(Struct, frozen=True):
    """What OPA sees in a folder of Rego."""

    packages: tuple[JsonPath, ...]
    """Without `data`, sorted."""
    entrypoints: tuple[Annotation, ...]


class Dependencies(Struct, frozen=True):
    """What a rule reads, directly or through others; a path ends where it goes on by an index or a variable."""

    input: frozenset[JsonPath]
    data: frozenset[JsonPath]
    """Paths that no rule defines."""
    virtual: frozenset[JsonPath]
    """Rules and functions."""


class Opa:
    """One `opa` executable."""

    def __init__(self, executable: str) -> None:
        """A path, or a name to look up in PATH. Raises BundleError where there is none."""
        found = shutil.which(executable)
        if found is None:
            raise BundleError(
                f"{executable} is not an executable here: install OPA with "
                f"`go install github.com/open-policy-agent/opa@v{VERSION}`, or name it with --opa"
            )
        # Commands are run in other folders.
        self._executable = str(Path(found).absolute())

    def version(self) -> str:
        """As in `1.22.2`."""
        said = re.search(r"^Version: (\S+)", self._run("version"), re.MULTILINE)
        if said is None:
            raise BundleError(f"{self._executable} does not tell its version; is it OPA?")
        return said[1]

    def check(self, folder: Path) -> None:
        """Strictly; raises OpaError."""
        self._run("check", "--strict", "--bundle", str(folder))

    def test(self, folder: Path) -> int:
        """How many tests passed; raises OpaError where one did not."""
        said = re.search(r"^PASS: (\d+)/", self._run("test", "--bundle", str(folder)), re.MULTILINE)
        return int(said[1]) if said else 0

    def inspect(self, folder: Path) -> Inspection:
        """Raises OpaError."""
        seen = json.loads(self._run("inspect", "--annotations", "--format", "json", str(folder)))
        return Inspection(
            packages=tuple(sorted(_package(name) for name in seen.get("namespaces", {}))),
            entrypoints=tuple(
                Annotation(
                    entrypoint="/".join(_constant_path(ref["path"])[1:]),
                    file=Path(ref["location"]["file"]),
                    row=ref["location"]["row"],
                )
                for ref in seen.get("annotations", ())
                if ref["annotations"].get("entrypoint")
            ),
        )

    def dependencies(self, folder: Path, entrypoint: str) -> Dependencies:
        """Raises OpaError."""
        query = "data" + "".join(f"[{json.dumps(step)}]" for step in entrypoint.split("/"))
        found = json.loads(self._run("deps", "--bundle", str(folder), "--format", "json", query))
        base = {_constant_path(ref) for ref in found.get("base") or ()}
        return Dependencies(
            input=frozenset(path[1:] for path in base if path[0] == "input"),
            data=frozenset(path[1:] for path in base if path[0] == "data"),
            virtual=frozenset(_constant_path(ref)[1:] for ref in found.get("virtual") or ()),
        )

    def plain_bundle(self, folder: Path, output: Path) -> dict[str, bytes]:
        """The files of OPA's own bundle of a folder, not compiled: its data put together, its manifest completed."""
        self._run("build", "--bundle", str(folder), "--output", str(output))
        return _bytes(read_archive(output, MAX_BYTES)[0])

    def builtins(self, folder: Path, output: Path, entrypoint: str, optimize: int) -> frozenset[str]:
        """The built-ins that an entrypoint calls.

        Read from OPA's plan, of which it makes the module: compiling a module to ask it takes a second, a plan 50 ms.
        """
        files = self._build(folder, output, [entrypoint], optimize, target="plan")
        static = json.loads(files["plan.json"])["static"]
        return frozenset(builtin["name"] for builtin in static.get("builtin_funcs") or ())

    def wasm_bundle(self, folder: Path, output: Path, entrypoints: Sequence[str], optimize: int) -> dict[str, bytes]:
        """The files of OPA's own bundle of a folder, compiled for these entrypoints."""
        return self._build(folder, output, entrypoints, optimize, target="wasm")

    def _build(
        self, folder: Path, output: Path, entrypoints: Sequence[str], optimize: int, *, target: str
    ) -> dict[str, bytes]:
        asked = [option for name in entrypoints for option in ("--entrypoint", name)]
        # Run inside of the folder: file names get into the module, for its error messages.
        self._run(
            *("build", "--bundle", ".", "--target", target, "--optimize", str(optimize), "--prune-unused"),
            *(*asked, "--output", str(output)),
            folder=folder,
        )
        return _bytes(read_archive(output, MAX_BYTES)[0])

    def _run(self, command: str, *arguments: str, folder: Path | None = None) -> str:
        # The executable is the choice of whoever builds; no shell is involved.
        done = subprocess.run(  # noqa: S603
            [self._executable, command, *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            output = "\n".join(part for part in (done.stdout.strip(), done.stderr.strip()) if part)
            if output.startswith("panic:"):
                # OPA 1.22 indexes an empty list where a module has no reference to any file.
                raise OpaError(
                    f"opa {command} crashed, as it does where every rule is constant: read some input", output
                )
            raise OpaError(f"opa {command} refused the policies (exit code {done.returncode})", output)
        return done.stdout


def _bytes(files: Mapping[str, memoryview]) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in files.items()}


def _constant_path(ref: Sequence[Mapping[str, Any]]) -> JsonPath:
    """The steps of a reference up to the first that is no string."""
    steps: list[str] = []
    for term in ref:
        if not isinstance(term["value"], str) or term["type"] != ("string" if steps else "var"):
            break
        steps.append(term["value"])
    return tuple(steps)


def _package(namespace: str) -> JsonPath:
    """`data.a["b-c"]` as its steps below `data`."""
    return tuple(plain or json.loads(f'"{quoted}"') for plain, quoted in _STEP.findall(namespace))
