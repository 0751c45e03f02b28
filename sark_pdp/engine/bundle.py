"""Reads OPA bundles: which modules and data they hold, and what each entrypoint can read of input and data.

The format is OPA's (https://www.openpolicyagent.org/docs/latest/management-bundles/): a gzipped tar archive with
`.manifest`, `policy.wasm` files and `data.json` files. `metadata.sark` of the manifest is ours; see `engine.manifest`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sark_pdp.engine.archive import MAX_BYTES, content_digest, read_archive
from sark_pdp.engine.manifest import EVERYTHING, MANIFEST, Manifest, decode_manifest, file_name
from sark_pdp.errors import BundleError
from sark_pdp.projection import Path as JsonPath

MODULE = "policy.wasm"
"""OPA loads no module of another name from a bundle, whatever its folder."""

DATA = "data.json"
_REFUSED = {
    ".signatures.json": "is signed, and no verification key is configured: use an unsigned bundle",
    "patch.json": "is a delta of data, not a whole bundle",
    "data.yaml": "holds data.yaml, which is not read: convert it to data.json, as `sark-pdp bundle build` does",
    "data.yml": "holds data.yml, which is not read: convert it to data.json, as `sark-pdp bundle build` does",
}
_WASM_MAGIC = b"\0asm"


class ModuleEntrypoint(Struct, frozen=True):
    """One entrypoint and what it can read; `((),)` is everything, `()` nothing."""

    name: str
    """As in `sark/mcp/decision`."""
    reads_input: tuple[JsonPath, ...]
    """Paths below `input`."""
    reads_data: tuple[JsonPath, ...]
    """Paths below `data`."""


class Module(Struct, frozen=True):
    """One compiled policy module."""

    path: str
    """In the bundle, without a leading slash."""
    wasm: bytes
    digest: str
    """SHA-256 of `wasm`, in hex."""
    entrypoints: tuple[ModuleEntrypoint, ...]
    """In the order of the manifest; at least one."""


class Bundle(Struct, frozen=True):
    """What one bundle holds, read and checked, not yet compiled."""

    revision: str
    """As the manifest has it; may be empty, and may be used again for another content."""
    digest: str
    """SHA-256, in hex, over paths and contents of all files, however they were packed."""
    roots: tuple[str, ...]
    """Paths below `data` that this bundle owns, as in `a/b`; `("",)` is all of it."""
    modules: tuple[Module, ...]
    data: dict[str, Any]
    size: int
    """Of the archive, in bytes."""
    stale: tuple[str, ...] = ()
    """Modules whose recorded reads were made for another content, and do not count."""

    @property
    def name(self) -> str:
        """What to call this policy revision: the bundle's, or its digest where it has none."""
        return self.revision or self.digest


def read_bundle(path: Path, *, max_bytes: int = MAX_BYTES) -> Bundle:
    """Reads a bundle of at most `max_bytes` unpacked bytes.

    Entrypoints of a bundle without `metadata.sark` (one of plain `opa build -t wasm`) read everything, as do those of
    a module whose digest is not the recorded one. Raises BundleError, one sentence that names file and fault.
    """
    files, size = read_archive(path, max_bytes)
    for name in files:
        if problem := _REFUSED.get(name.rpartition("/")[2]):
            raise BundleError(f"bundle {path}: {problem}")
    if not any(name.rpartition("/")[2] == MODULE for name in files):
        raise BundleError(
            f"bundle {path}: holds no policy.wasm; build it with `sark-pdp bundle build` or `opa build -t wasm`"
        )
    manifest = decode_manifest(path, files.get(MANIFEST))
    modules = _modules(path, files, manifest)
    recorded = manifest.recorded()
    return Bundle(
        revision=manifest.revision,
        digest=content_digest(files),
        roots=manifest.roots,
        modules=modules,
        data=_data(path, files),
        size=size,
        stale=tuple(
            module.path
            for module in modules
            if module.path in recorded and recorded[module.path].sha256 != module.digest
        ),
    )


def _modules(path: Path, files: Mapping[str, memoryview], manifest: Manifest) -> tuple[Module, ...]:
    names: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for entry in manifest.wasm:
        file = file_name(entry.module)
        if file not in files:
            raise BundleError(
                f"bundle {path}: .manifest maps {entry.entrypoint} to {entry.module}, which it does not hold"
            )
        if owner.setdefault(entry.entrypoint, file) != file:
            raise BundleError(f"bundle {path}: .manifest maps {entry.entrypoint} to two modules")
        if entry.entrypoint not in names.setdefault(file, []):
            names[file].append(entry.entrypoint)
    if not names:
        raise BundleError(f"bundle {path}: .manifest names no entrypoint; build the bundle with --entrypoint")
    return tuple(_module(path, file, bytes(files[file]), names[file], manifest) for file in names)


def _module(path: Path, file: str, wasm: bytes, entrypoints: list[str], manifest: Manifest) -> Module:
    if not wasm.startswith(_WASM_MAGIC):
        raise BundleError(f"bundle {path}: {file} is not a WebAssembly module")
    digest = hashlib.sha256(wasm).hexdigest()
    reads = manifest.reads(file, digest)
    return Module(
        path=file,
        wasm=wasm,
        digest=digest,
        entrypoints=tuple(
            ModuleEntrypoint(
                name=name,
                reads_input=reads[name].input if name in reads else EVERYTHING,
                reads_data=reads[name].data if name in reads else EVERYTHING,
            )
            for name in entrypoints
        ),
    )


def _data(path: Path, files: Mapping[str, memoryview]) -> dict[str, Any]:
    """The `data.json` of each folder, put together below the path of its folder."""
    data: dict[str, Any] = {}
    for name in sorted(files):
        folder, _, base = name.rpartition("/")
        if base != DATA:
            continue
        try:
            document = msgspec.json.decode(files[name])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BundleError(f"bundle {path}: {name} is not valid JSON: {error}") from None
        for step in reversed(folder.split("/") if folder else []):
            document = {step: document}
        if not isinstance(document, dict):
            raise BundleError(f"bundle {path}: {name} is not a JSON object")
        _merge(path, name, data, document)
    return data


def _merge(path: Path, name: str, into: dict[str, Any], document: dict[str, Any]) -> None:
    for key, value in document.items():
        if key not in into:
            into[key] = value
        elif isinstance(value, dict) and isinstance(into[key], dict):
            _merge(path, name, into[key], value)
        else:
            raise BundleError(f"bundle {path}: {name} and another data.json both have a value for {key!r}")
