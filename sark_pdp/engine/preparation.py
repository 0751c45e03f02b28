"""Makes of the bundles as they were delivered what an activation needs: modules, each with its data and fingerprints.

Decoding and encoding data holds the interpreter for milliseconds per megabyte, and takes many times its size in memory.
Where there is much of it a child process of low priority does that, and this one is handed the result as bytes.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sark_pdp.engine.archive import unpacked_size
from sark_pdp.engine.bundle import Bundle, Module, ModuleEntrypoint, read_archives
from sark_pdp.engine.roots import first_overlap
from sark_pdp.engine.signatures import Keys
from sark_pdp.errors import BundleActivationError, BundleError, BundleSignatureError, BundleSizeError
from sark_pdp.projection import Path as JsonPath
from sark_pdp.projection import Projection

KEY_VERSION: Final = b"1"
"""Part of every fingerprint; raised when the meaning of a cache key changes."""

CHILD_NICENESS: Final = 19
_INLINE_BYTES: Final = 1024 * 1024
"""Of unpacked bundles: what takes less than about 20 ms, little enough for this process."""
_CHILD_SECONDS: Final = 300.0
_ERRORS: Final = {error.__name__: error for error in (BundleError, BundleSignatureError, BundleSizeError)}

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Content(Struct, frozen=True):
    """One bundle as its source delivered it."""

    name: str
    """As it is configured."""
    label: str
    """What messages call it."""
    archives: tuple[bytes, ...]
    """A whole bundle and the deltas since. The last may be either: where it is whole, it replaces the others."""
    keys: Keys | None = None
    """One of these must have signed each archive; None: they must be unsigned."""


class PreparedBundle(Struct, frozen=True):
    """What is known of one bundle once it is active."""

    name: str
    revision: str
    digest: str
    archives: int = 1
    """How many of the last archives it is made of."""


class PreparedEntrypoint(Struct, frozen=True):
    """One entrypoint; see ModuleEntrypoint."""

    name: str
    reads_input: tuple[JsonPath, ...]
    reads_data: tuple[JsonPath, ...]
    fingerprint: bytes
    """32 bytes that change with the module, with the data that it can read, and with nothing else."""


class PreparedModule(Struct, frozen=True):
    """One module and the data that its entrypoints can read."""

    bundle: str
    """The name of its bundle."""
    revision: str
    """Of its bundle, or the digest where it has none."""
    path: str
    wasm: bytes
    digest: str
    data_json: bytes
    entrypoints: tuple[PreparedEntrypoint, ...]


class Prepared(Struct, frozen=True):
    """All that one activation is made of."""

    bundles: tuple[PreparedBundle, ...]
    modules: tuple[PreparedModule, ...]


class _Order(Struct, frozen=True):
    """What the child is told."""

    contents: tuple[Content, ...]
    max_bytes: int


class _Refusal(Struct, frozen=True, tag=True):
    """What the child tells where a bundle is refused."""

    kind: str
    message: str


class _Done(Struct, frozen=True, tag=True):
    prepared: Prepared


def prepare(contents: Sequence[Content], max_bytes: int) -> Prepared:
    """Reads, verifies and puts together these bundles, in a child process where they are large.

    `max_bytes` is the most that each archive may unpack to. Raises BundleError, and OSError where the child failed.
    """
    total = sum(unpacked_size(packed) for content in contents for packed in content.archives)
    if total <= _INLINE_BYTES:
        # Where it is larger than it says, or too large, the child tells which.
        with contextlib.suppress(BundleSizeError):
            return prepare_here(contents, min(max_bytes, _INLINE_BYTES))
    return _prepare_in_child(_Order(tuple(contents), max_bytes))


def prepare_here(contents: Sequence[Content], max_bytes: int) -> Prepared:
    """The same in this process."""
    try:
        return _prepare_here(contents, max_bytes)
    except RecursionError:
        labels = ", ".join(content.label for content in contents)
        raise BundleError(f"bundle {labels}: the data is nested too deeply") from None


def _prepare_here(contents: Sequence[Content], max_bytes: int) -> Prepared:
    read = {
        content.name: read_archives(content.label, content.archives, max_bytes=max_bytes, keys=content.keys)
        for content in contents
    }
    prepared = combine({name: bundle for name, (bundle, _) in read.items()})
    bundles = tuple(replace(bundle, archives=read[bundle.name][1]) for bundle in prepared.bundles)
    return replace(prepared, bundles=bundles)


def combine(bundles: Mapping[str, Bundle]) -> Prepared:
    """Puts bundles, by their configured name, together: each module sees the data of all. Raises BundleError."""
    if shared := first_overlap({name: bundle.roots for name, bundle in bundles.items()}):
        one, other, root = shared
        raise BundleError(
            f"the bundles {one} and {other} both own {root or 'all data'}: "
            "give them roots in .manifest that do not overlap"
        )
    first, *others = bundles.values()
    data = first.data
    for bundle in others:
        data = _merged(data, bundle.data)
    seen = _Canonical(data)
    return Prepared(
        bundles=tuple(PreparedBundle(name, each.revision, each.digest) for name, each in bundles.items()),
        modules=tuple(
            _module(name, bundle, module, seen) for name, bundle in bundles.items() for module in bundle.modules
        ),
    )


class _Canonical:
    """Parts of the data as JSON with sorted keys, each made once."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._known: dict[tuple[JsonPath, ...], bytes] = {}

    def part(self, paths: Sequence[JsonPath]) -> bytes:
        """What lies at these paths, and what is needed around it."""
        projection = Projection(paths)
        if projection.paths not in self._known:
            self._known[projection.paths] = _canonical(projection.project(self._data))
        return self._known[projection.paths]


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both, sharing what is in them. Below roots that do not overlap there is nothing to merge, only above them."""
    merged = one | other
    for key in one.keys() & other.keys():
        merged[key] = _merged(one[key], other[key])
    return merged


def _module(name: str, bundle: Bundle, module: Module, data: _Canonical) -> PreparedModule:
    # A module gets the data that its entrypoints can read, and no more: memory is paid for each instance.
    needed = [path for stated in module.entrypoints for path in stated.reads_data]
    return PreparedModule(
        bundle=name,
        revision=bundle.name,
        path=module.path,
        wasm=module.wasm,
        digest=module.digest,
        data_json=data.part(needed),
        entrypoints=tuple(
            PreparedEntrypoint(stated.name, stated.reads_input, stated.reads_data, _fingerprint(module, stated, data))
            for stated in module.entrypoints
        ),
    )


def _fingerprint(module: Module, stated: ModuleEntrypoint, data: _Canonical) -> bytes:
    digest = sha256()
    for part in (KEY_VERSION, module.digest.encode(), data.part(stated.reads_data), stated.name.encode()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _prepare_in_child(order: _Order) -> Prepared:
    try:
        child = subprocess.run(  # noqa: S603  # this interpreter, this module
            # -P: -m would put the current folder before all others, and run whatever is named like a module there.
            [sys.executable, "-P", "-m", __name__],
            input=msgspec.msgpack.encode(order),
            capture_output=True,
            timeout=_CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BundleActivationError(f"the bundles take longer than {_CHILD_SECONDS:.0f} s to read") from None
    if child.returncode != 0:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"the child that reads bundles ended with {child.returncode}: {lines[-1] if lines else ''}")
    told = msgspec.msgpack.decode(child.stdout, type=_Done | _Refusal)
    if isinstance(told, _Refusal):
        raise _ERRORS.get(told.kind, BundleError)(told.message)
    return told.prepared


def _main() -> None:
    """Reads an order from standard input and writes what became of it to standard output."""
    os.nice(CHILD_NICENESS)
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Order)
    told: _Done | _Refusal
    try:
        told = _Done(prepare_here(order.contents, order.max_bytes))
    except BundleError as error:
        told = _Refusal(type(error).__name__, str(error))
    sys.stdout.buffer.write(msgspec.msgpack.encode(told))


if __name__ == "__main__":
    _main()
