"""Reads OPA bundles: which modules and data they hold, and what each entrypoint can read of input and data.

The format is OPA's (https://www.openpolicyagent.org/docs/latest/management-bundles/): a gzipped tar archive with
`.manifest`, `policy.wasm` files and `data.json` files. `metadata.sark` of the manifest is ours; see `engine.manifest`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.engine.archive import MAX_BYTES, Label, content_digest, read_packed, unpack
from sark_pdp.engine.deltas import Delta, apply_delta, decode_delta, is_delta
from sark_pdp.engine.manifest import EVERYTHING, MANIFEST, Manifest, decode_manifest, file_name
from sark_pdp.engine.roots import first_foreign, owns, steps_of
from sark_pdp.engine.signatures import Keys, verify
from sark_pdp.errors import BundleError
from sark_pdp.projection import Path as JsonPath

MODULE = "policy.wasm"
"""OPA loads no module of another name from a bundle, whatever its folder."""

DATA = "data.json"
_REFUSED = {
    "data.yaml": "holds data.yaml, which is not read: convert it to data.json, as `sark-pdp bundle build` does",
    "data.yml": "holds data.yml, which is not read: convert it to data.json, as `sark-pdp bundle build` does",
    ".manifest.pb": "holds .manifest.pb, which is not read: build it with a .manifest in JSON",
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
    """None where it is data alone."""
    data: dict[str, Any]
    size: int
    """Of the archive, in bytes."""
    stale: tuple[str, ...] = ()
    """Modules whose recorded reads were made for another content, and do not count."""
    manifest: Manifest = Manifest()

    @property
    def name(self) -> str:
        """What to call this policy revision: the bundle's, or its digest where it has none."""
        return self.revision or self.digest


def read_bundle(path: Path, *, max_bytes: int = MAX_BYTES, keys: Keys | None = None) -> Bundle:
    """Reads one bundle from a file; see `read_archives`."""
    return read_archives(path, [read_packed(path, max_bytes)], max_bytes=max_bytes, keys=keys)[0]


def read_archives(
    label: Label, archives: Sequence[bytes], *, max_bytes: int = MAX_BYTES, keys: Keys | None = None
) -> tuple[Bundle, int]:
    """Reads the last whole bundle among `archives`, and the deltas that follow it; and how many archives that are.

    Each may unpack to `max_bytes`, and must be signed by one of `keys`, or not at all. Raises BundleError, one sentence
    that names file and fault.
    """
    deltas: list[Delta] = []
    digests: list[str] = []
    for packed in reversed(archives):
        files = unpack(label, packed, max_bytes)
        verify(label, files, keys)
        if not is_delta(files):
            break
        deltas.append(decode_delta(label, files))
        digests.append(content_digest(files))
    else:
        raise BundleError(f"bundle {label}: is a delta of data, and there is no whole bundle before it")
    bundle = _whole(label, files, len(packed))
    for delta, digest in zip(reversed(deltas), reversed(digests), strict=True):
        bundle = _with_delta(bundle, label, delta, digest)
    return bundle, 1 + len(deltas)


def _whole(label: Label, files: Mapping[str, memoryview], size: int) -> Bundle:
    """Entrypoints of a bundle without `metadata.sark` (one of plain `opa build -t wasm`) read everything, as do those
    of a module whose digest is not the recorded one."""
    for name in files:
        if problem := _REFUSED.get(name.rpartition("/")[2]):
            raise BundleError(f"bundle {label}: {problem}")
    manifest = _manifest(label, files)
    modules = _modules(label, files, manifest)
    recorded = manifest.recorded()
    data = _data(label, files)
    _require_owned(label, manifest, data)
    return Bundle(
        revision=manifest.revision,
        digest=content_digest(files),
        roots=manifest.owned(),
        modules=modules,
        data=data,
        size=size,
        stale=tuple(
            module.path
            for module in modules
            if module.path in recorded and recorded[module.path].sha256 != module.digest
        ),
        manifest=manifest,
    )


def _with_delta(bundle: Bundle, label: Label, delta: Delta, digest: str) -> Bundle:
    """The bundle after a delta whose files have this digest; `bundle` is of no use afterwards."""
    return replace(
        bundle,
        revision=delta.manifest.revision or bundle.revision,
        digest=hashlib.sha256(f"{bundle.digest} {digest}".encode()).hexdigest(),
        data=apply_delta(label, delta, bundle.manifest, bundle.data),
    )


def _manifest(label: Label, files: Mapping[str, memoryview]) -> Manifest:
    bases = {name.rpartition("/")[2] for name in files}
    # A bundle of data alone need not have one.
    if MODULE not in bases and MANIFEST not in files and DATA in bases:
        return Manifest()
    manifest = decode_manifest(label, files.get(MANIFEST)) if MODULE in bases or MANIFEST in files else Manifest()
    if MODULE not in bases and (manifest.wasm or DATA not in bases or any(name.endswith(".rego") for name in files)):
        raise BundleError(
            f"bundle {label}: holds no policy.wasm; build it with `sark-pdp bundle build` or `opa build -t wasm`"
        )
    return manifest


def _require_owned(label: Label, manifest: Manifest, data: Mapping[str, Any]) -> None:
    roots = manifest.owned()
    for entry in manifest.wasm:
        if not any(owns(root, steps_of(entry.entrypoint)) for root in roots):
            raise BundleError(f"bundle {label}: the entrypoint {entry.entrypoint} lies outside of its roots")
    if foreign := first_foreign(roots, data):
        raise BundleError(f"bundle {label}: the data at {'/'.join(foreign)} lies outside of its roots")


def _modules(label: Label, files: Mapping[str, memoryview], manifest: Manifest) -> tuple[Module, ...]:
    names: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for entry in manifest.wasm:
        file = file_name(entry.module)
        if file not in files:
            raise BundleError(
                f"bundle {label}: .manifest maps {entry.entrypoint} to {entry.module}, which it does not hold"
            )
        if owner.setdefault(entry.entrypoint, file) != file:
            raise BundleError(f"bundle {label}: .manifest maps {entry.entrypoint} to two modules")
        if entry.entrypoint not in names.setdefault(file, []):
            names[file].append(entry.entrypoint)
    if not names and any(name.rpartition("/")[2] == MODULE for name in files):
        raise BundleError(f"bundle {label}: .manifest names no entrypoint; build the bundle with --entrypoint")
    return tuple(_module(label, file, bytes(files[file]), names[file], manifest) for file in names)


def _module(label: Label, file: str, wasm: bytes, entrypoints: list[str], manifest: Manifest) -> Module:
    if not wasm.startswith(_WASM_MAGIC):
        raise BundleError(f"bundle {label}: {file} is not a WebAssembly module")
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


def _data(label: Label, files: Mapping[str, memoryview]) -> dict[str, Any]:
    """The `data.json` of each folder, put together below the path of its folder."""
    data: dict[str, Any] = {}
    for name in sorted(files):
        folder, _, base = name.rpartition("/")
        if base != DATA:
            continue
        try:
            document = msgspec.json.decode(files[name])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BundleError(f"bundle {label}: {name} is not valid JSON: {error}") from None
        for step in reversed(folder.split("/") if folder else []):
            document = {step: document}
        if not isinstance(document, dict):
            raise BundleError(f"bundle {label}: {name} is not a JSON object")
        _merge(label, name, data, document)
    return data


def _merge(label: Label, name: str, into: dict[str, Any], document: dict[str, Any]) -> None:
    for key, value in document.items():
        if key not in into:
            into[key] = value
        elif isinstance(value, dict) and isinstance(into[key], dict):
            _merge(label, name, into[key], value)
        else:
            raise BundleError(f"bundle {label}: {name} and another data.json both have a value for {key!r}")
