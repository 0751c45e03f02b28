"""Delta bundles: changes to the data of a bundle that was delivered whole before.

A delta is an archive with `patch.json` and maybe `.manifest`, nothing else
(https://www.openpolicyagent.org/docs/latest/management-bundles/#delta-bundles). Unlike OPA this takes signed deltas,
and refuses one without any operation, which OPA takes for an order to forget all data.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sark_pdp.engine.archive import Label
from sark_pdp.engine.manifest import MANIFEST, Manifest, decode_manifest
from sark_pdp.engine.roots import owns
from sark_pdp.engine.signatures import SIGNATURES
from sark_pdp.errors import BundleError

PATCH: Final = "patch.json"


class Operation(Struct, frozen=True):
    """One change."""

    op: Literal["upsert", "replace", "remove"]
    path: str
    """A JSON pointer (RFC 6901) below `data`."""
    value: Any | UnsetType = UNSET


class Delta(Struct, frozen=True):
    """What one delta bundle holds."""

    manifest: Manifest
    operations: tuple[Operation, ...]


class _Patch(Struct, frozen=True):
    data: tuple[Operation, ...] = ()


class _MismatchError(Exception):
    """An operation does not fit the data; the text ends a sentence about it."""


def is_delta(files: Mapping[str, Any]) -> bool:
    """Whether these are the files of a delta bundle."""
    return PATCH in files


def decode_delta(label: Label, files: Mapping[str, bytes | memoryview]) -> Delta:
    """Raises BundleError."""
    odd = sorted(files.keys() - {PATCH, MANIFEST, SIGNATURES})
    if odd:
        raise BundleError(f"bundle {label}: is a delta, which may hold {PATCH} alone, and holds {odd[0]} too")
    try:
        patch = msgspec.json.decode(files[PATCH], type=_Patch)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"bundle {label}: {PATCH} is not as it should be: {error}") from None
    if not patch.data:
        raise BundleError(f"bundle {label}: {PATCH} holds no operation; a server without news answers 304")
    manifest = decode_manifest(label, files[MANIFEST]) if MANIFEST in files else Manifest()
    return Delta(manifest, patch.data)


def apply_delta(label: Label, delta: Delta, manifest: Manifest, data: dict[str, Any]) -> dict[str, Any]:
    """The data after the operations of `delta`, in their order; `data` itself is changed and of no use afterwards.

    `manifest` is that of the whole bundle. Raises BundleError where an operation does not fit.
    """
    stated = delta.manifest
    if (stated.roots is not None and set(stated.owned()) != set(manifest.owned())) or (
        stated.wasm and stated.wasm != manifest.wasm
    ):
        raise BundleError(f"bundle {label}: is a delta of a bundle with other roots or entrypoints")
    for operation in delta.operations:
        path = _steps(operation.path)
        if not any(owns(root, path) for root in manifest.owned()):
            raise BundleError(f"bundle {label}: {operation.path} lies outside of its roots")
        try:
            data = _apply(operation, path, data)
        except _MismatchError as error:
            raise BundleError(f"bundle {label}: cannot {operation.op} {operation.path}: {error}") from None
    return data


def _steps(pointer: str) -> tuple[str, ...]:
    trimmed = pointer.strip("/")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in trimmed.split("/")) if trimmed else ()


def _apply(operation: Operation, path: tuple[str, ...], data: dict[str, Any]) -> dict[str, Any]:
    value = operation.value
    if operation.op != "remove" and value is UNSET:
        raise _MismatchError("it has no value")
    if not path:
        if operation.op == "remove" or not isinstance(value, dict):
            raise _MismatchError("all of the data has to be an object")
        return value
    parent = _parent(data, path, create=operation.op == "upsert")
    if isinstance(parent, dict):
        _change_object(operation.op, parent, path[-1], value)
    elif isinstance(parent, list):
        _change_array(operation.op, parent, path[-1], value)
    else:
        raise _MismatchError("it is inside of a value that is neither object nor array")
    return data


def _parent(data: Any, path: tuple[str, ...], *, create: bool) -> Any:
    for step in path[:-1]:
        if isinstance(data, dict):
            if step not in data:
                if not create:
                    raise _MismatchError("there is no such path")
                data[step] = {}
            data = data[step]
        elif isinstance(data, list):
            data = data[_index(step, len(data) - 1)]
        else:
            raise _MismatchError("it is inside of a value that is neither object nor array")
    return data


def _change_object(op: str, parent: dict[str, Any], key: str, value: Any) -> None:
    if op != "upsert" and key not in parent:
        raise _MismatchError("there is no such path")
    if op == "remove":
        del parent[key]
    else:
        parent[key] = value


def _change_array(op: str, parent: list[Any], step: str, value: Any) -> None:
    if op == "upsert":
        parent.insert(len(parent) if step == "-" else _index(step, len(parent)), value)
    elif op == "remove":
        del parent[_index(step, len(parent) - 1)]
    else:
        parent[_index(step, len(parent) - 1)] = value


def _index(step: str, last: int) -> int:
    if not (step.isascii() and step.isdigit()) or len(step) > 9 or int(step) > last:
        raise _MismatchError(f"the array has no index {step}")
    return int(step)
