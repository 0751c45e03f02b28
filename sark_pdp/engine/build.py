"""Builds bundles: compiles Rego to WebAssembly with OPA and records what each entrypoint can read.

Three properties of OPA's compiler shape what is done here.

- Its optimizer takes the data that it sees for constant and folds it into the code, and takes data that it does not
  see for absent, except what lies outside of the manifest's roots. So it is given the Rego alone, with a manifest that
  owns nothing but the packages. Data inside of a package cannot be told apart that way: then it does not optimize.
- It compiles every rule annotated as an entrypoint into every module. So annotations are switched off in a copy.
- One built-in that reads the clock makes all entrypoints of its module uncacheable. So those get a module of their own.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sark_pdp.engine.archive import pack_archive, replace_file
from sark_pdp.engine.bundle import DATA, MODULE, Bundle, read_bundle
from sark_pdp.engine.manifest import EVERYTHING, MANIFEST, VERSION, Reads, decode_manifest, encode_json
from sark_pdp.engine.opa import Annotation, Dependencies, Opa
from sark_pdp.engine.wasm.builtins import NONDETERMINISTIC
from sark_pdp.errors import BundleError
from sark_pdp.projection import Path as JsonPath
from sark_pdp.projection import Projection

NONDETERMINISTIC_MODULE = "nondeterministic/" + MODULE

Report = Callable[[str], None]
"""Told in one line what is done next."""

_ENTRYPOINT = re.compile(r"^(\s*#\s*entrypoint\s*:\s*)true\b")


class _Sources(Struct, frozen=True):
    """What a folder holds, each part as the compiler is to see it."""

    rego: Path
    """A copy of the Rego alone, without tests and data."""
    packages: tuple[JsonPath, ...]
    annotated: tuple[str, ...]
    data: dict[str, Any]
    data_json: bytes
    manifest: dict[str, Any]


def build_bundle(
    folder: Path, output: Path, *, opa: Opa, entrypoints: Sequence[str], revision: str | None, report: Report
) -> Bundle:
    """Checks, tests and compiles the policies of `folder` into the bundle `output`, and reads it back.

    Without `entrypoints` those annotated with `entrypoint: true` are built; without `revision`, the source manifest's
    or else a digest of the sources. The same sources make the same bytes. Raises BundleError, and OpaError with what
    OPA said.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder of policies")
    report(f"checking {folder} with OPA {opa.version()}")
    opa.check(folder)
    passed = opa.test(folder)
    report(f"{passed} tests passed" if passed else "there are no tests")
    with tempfile.TemporaryDirectory(prefix="sark-bundle-") as temporary:
        files = _files(opa, folder, Path(temporary), entrypoints, revision, report)
    replace_file(output, pack_archive(files))
    return read_bundle(output)


def _files(
    opa: Opa, folder: Path, work: Path, wanted: Sequence[str], revision: str | None, report: Report
) -> dict[str, bytes]:
    sources = _stage(opa, folder, work)
    entrypoints = sorted({name.strip("/") for name in wanted} or sources.annotated)
    if not entrypoints:
        raise BundleError(f"{folder}: name an entrypoint with --entrypoint, or annotate a rule with `entrypoint: true`")
    dependencies = {name: opa.dependencies(sources.rego, name) for name in entrypoints}
    optimize = _optimization(sources, dependencies.values(), report)
    modules: dict[str, bytes] = {}
    contents: dict[str, list[str]] = {}
    for path, group in _groups(opa, sources, work, entrypoints, optimize).items():
        report(f"compiling {', '.join(group)}")
        modules[path] = _compile(opa, sources.rego, work, group, optimize)
        contents[path] = group
    reads = {name: _reads(found, sources) for name, found in dependencies.items()}
    manifest = {
        **sources.manifest,
        "revision": revision or sources.manifest.get("revision") or _source_digest(sources, entrypoints),
        "wasm": [{"entrypoint": name, "module": f"/{path}"} for path in sorted(contents) for name in contents[path]],
        "metadata": {**sources.manifest.get("metadata", {}), "sark": _metadata(modules, contents, reads)},
    }
    # No Rego: OPA adds it for queries other than the entrypoints, and a sidecar answers none.
    return {**modules, DATA: sources.data_json, MANIFEST: encode_json(manifest)}


def _stage(opa: Opa, folder: Path, work: Path) -> _Sources:
    plain = opa.plain_bundle(folder, work / "plain.tar.gz")
    manifest = msgspec.json.decode(plain[MANIFEST])
    rego = work / "rego"
    for file in sorted(folder.rglob("*.rego")):
        if not file.name.endswith("_test.rego"):
            copy = rego / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    if not rego.is_dir():
        raise BundleError(f"{folder}: holds no Rego files")
    versions = {key: manifest[key] for key in ("rego_version", "file_rego_versions") if key in manifest}
    (rego / MANIFEST).write_bytes(encode_json(versions))
    seen = opa.inspect(rego)
    (rego / MANIFEST).write_bytes(encode_json({**versions, "roots": _roots(seen.packages)}))
    for annotation in seen.entrypoints:
        _switch_off(annotation)
    return _Sources(
        rego=rego,
        packages=seen.packages,
        annotated=tuple(sorted({annotation.entrypoint for annotation in seen.entrypoints})),
        data=msgspec.json.decode(plain[DATA]),
        data_json=plain[DATA],
        manifest=manifest,
    )


def _roots(packages: Iterable[JsonPath]) -> list[str]:
    """Of the packages, those that no other contains: OPA refuses roots that overlap."""
    return ["/".join(path) for path in Projection(packages).paths]


def _switch_off(annotation: Annotation) -> None:
    """Writes `entrypoint: false` into the comment above the rule or package."""
    lines = annotation.file.read_text(encoding="utf-8").splitlines(keepends=True)
    for index in range(annotation.row - 2, -1, -1):
        if match := _ENTRYPOINT.match(lines[index]):
            lines[index] = match[1] + "false" + lines[index][match.end() :]
            annotation.file.write_text("".join(lines), encoding="utf-8")
            return
        if lines[index].strip() and not lines[index].lstrip().startswith("#"):
            break
    raise BundleError(f"the metadata of {annotation.entrypoint} must have `# entrypoint: true` on a line of its own")


def _optimization(sources: _Sources, dependencies: Iterable[Dependencies], report: Report) -> int:
    read = {path for found in dependencies for path in found.data}
    for package in sources.packages:
        within = [path for path in read if path[: len(package)] == package]
        if within or _has(sources.data, package):
            report(
                f"not optimized, because there is data inside of the package {'.'.join(package)}; "
                "move it to a path of its own for faster decisions"
            )
            return 0
    return 1


def _has(data: Any, path: JsonPath) -> bool:
    for step in path:
        if not isinstance(data, dict) or step not in data:
            return False
        data = data[step]
    return True


def _groups(
    opa: Opa, sources: _Sources, work: Path, entrypoints: Sequence[str], optimize: int
) -> Mapping[str, list[str]]:
    """Entrypoints by the path of their module."""
    plan = work / "plan.tar.gz"
    impure = [name for name in entrypoints if opa.builtins(sources.rego, plan, name, optimize) & NONDETERMINISTIC]
    pure = [name for name in entrypoints if name not in impure]
    if not pure or not impure:
        return {MODULE: list(entrypoints)}
    return {MODULE: pure, NONDETERMINISTIC_MODULE: impure}


def _compile(opa: Opa, rego: Path, work: Path, entrypoints: Sequence[str], optimize: int) -> bytes:
    output = work / "compiled.tar.gz"
    files = opa.wasm_bundle(rego, output, entrypoints, optimize)
    compiled = {entry.entrypoint for entry in decode_manifest(output, files[MANIFEST]).wasm}
    if compiled != set(entrypoints):
        raise BundleError(f"OPA compiled {', '.join(sorted(compiled))} instead of {', '.join(entrypoints)}")
    return files[MODULE]


def _reads(found: Dependencies, sources: _Sources) -> Reads:
    """What OPA's analysis found; of data, all that a reference into a package can reach besides its rules.

    The analysis reports `data.a[x]` as the rules below `a`, and says nothing of documents there. Where the bundle has
    some, everything counts; where it has none yet, a later change of data can still bring them.
    """
    if {package[0] for package in sources.packages} & sources.data.keys():
        data = EVERYTHING
    else:
        data = Projection(found.data | {path[:1] for path in found.virtual}).paths
    return Reads(input=Projection(found.input).paths, data=data)


def _metadata(
    modules: Mapping[str, bytes], contents: Mapping[str, Sequence[str]], reads: Mapping[str, Reads]
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "modules": {
            f"/{path}": {
                "sha256": hashlib.sha256(wasm).hexdigest(),
                "entrypoints": {name: msgspec.to_builtins(reads[name]) for name in contents[path]},
            }
            for path, wasm in modules.items()
        },
    }


def _source_digest(sources: _Sources, entrypoints: Sequence[str]) -> str:
    """16 hex digits over all that is compiled and packed; tests do not count."""
    digest = hashlib.sha256(encode_json([entrypoints, sources.manifest]) + sources.data_json)
    for file in sorted(sources.rego.rglob("*.rego")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(sources.rego).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
