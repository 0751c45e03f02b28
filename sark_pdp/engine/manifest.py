"""The `.manifest` of a bundle, and in it `metadata.sark`: what the entrypoints of each module can read.

`{"version":1,"modules":{FILE:{"sha256":…,"entrypoints":{E:{"input":[[…]],"data":[[…]]}}}}}`: FILE is named
as in `wasm[].module`, paths are lists of keys, `[[]]` is everything. It speaks of the module with that digest only.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from sark_pdp.engine.archive import Label
from sark_pdp.engine.roots import overlap
from sark_pdp.errors import BundleError
from sark_pdp.projection import Path as JsonPath

MANIFEST = ".manifest"
EVERYTHING: tuple[JsonPath, ...] = ((),)
VERSION = 1
MAX_ROOTS = 1000
"""Each is compared with each."""


class Reads(Struct, frozen=True):
    """What an entrypoint can read."""

    input: tuple[JsonPath, ...] = EVERYTHING
    data: tuple[JsonPath, ...] = EVERYTHING


class ModuleReads(Struct, frozen=True):
    """What the entrypoints of the module with this digest can read."""

    sha256: str
    entrypoints: dict[str, Reads]


class SarkMetadata(Struct, frozen=True):
    """`metadata.sark`; a version that is not VERSION has another shape below, and says nothing to this one."""

    version: int
    modules: msgspec.Raw = msgspec.Raw(b"{}")


class WasmEntry(Struct, frozen=True):
    """Which module answers an entrypoint."""

    entrypoint: str
    module: str


class _Metadata(Struct, frozen=True):
    sark: SarkMetadata | None = None


class Manifest(Struct, frozen=True):
    """The keys of a manifest that count here."""

    revision: str = ""
    roots: tuple[str, ...] | None = None
    wasm: tuple[WasmEntry, ...] = ()
    metadata: _Metadata = _Metadata()

    def owned(self) -> tuple[str, ...]:
        """The roots, without slashes around them; all of `data` where it states none."""
        return ("",) if self.roots is None else tuple(root.strip("/") for root in self.roots)

    def recorded(self) -> dict[str, ModuleReads]:
        """By path of the module in the bundle, without a leading slash; empty without metadata of our version."""
        sark = self.metadata.sark
        if sark is None or sark.version != VERSION:
            return {}
        modules = msgspec.json.decode(sark.modules, type=dict[str, ModuleReads])
        return {file_name(name): reads for name, reads in modules.items()}

    def reads(self, module: str, digest: str) -> Mapping[str, Reads]:
        """By entrypoint, as recorded for the module with this digest."""
        recorded = self.recorded().get(module)
        return recorded.entrypoints if recorded is not None and recorded.sha256 == digest else {}


def decode_manifest(label: Label, content: bytes | memoryview | None) -> Manifest:
    """Raises BundleError where it is missing, no JSON, of wrong types, or has too many roots, or one within another."""
    if content is None:
        raise BundleError(f"bundle {label}: holds no .manifest, which names the entrypoints")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
        manifest.recorded()
    except msgspec.ValidationError as error:
        raise BundleError(f"bundle {label}: .manifest is not as it should be: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"bundle {label}: .manifest is not valid JSON: {error}") from None
    roots = manifest.owned()
    if len(roots) > MAX_ROOTS:
        raise BundleError(f"bundle {label}: .manifest has {len(roots)} roots; no more than {MAX_ROOTS} are taken")
    for index, root in enumerate(roots):
        for other in roots[index + 1 :]:
            if overlap(root, other):
                raise BundleError(f"bundle {label}: .manifest has the roots {root!r} and {other!r}, which overlap")
    return manifest


def encode_json(value: Any) -> bytes:
    """Keys sorted: the same bytes for the same value."""
    return msgspec.json.encode(value, order="sorted")


def file_name(path: str) -> str:
    """A path of the manifest as a path in the bundle: without a leading slash."""
    return "/".join(step for step in path.split("/") if step not in ("", "."))
