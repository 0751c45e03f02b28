"""Signatures of bundles, as OPA has them: `.signatures.json` holds one token that states a digest for each file.

https://www.openpolicyagent.org/docs/latest/management-bundles/#signing. A digest of JSON (`.manifest`, `data.json`) is
over its canonical form, that of any other file over its bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from sark_pdp.engine import jws
from sark_pdp.engine.archive import Label
from sark_pdp.errors import BundleSignatureError

SIGNATURES: Final = ".signatures.json"

_PLUGIN: Final = "_default"
"""What OPA calls its own way to sign."""
_STRUCTURED: Final = frozenset({".manifest", "data.json"})
_DIGESTS: Final = {
    **{f"SHA-{size}": f"sha{size}" for size in (224, 256, 384, 512)},
    "SHA-512-224": "sha512_224",
    "SHA-512-256": "sha512_256",
}
"""MD5 and SHA-1, which OPA takes too, are left out: others can make a file with the same digest."""


class Key(Struct, frozen=True):
    """One key, and what it is good for."""

    content: bytes
    """PEM, or a secret."""
    scope: str = ""
    """What tokens have to state as their scope."""
    algorithm: str = ""
    """The only one that counts; empty: any that fits the key."""


class Keys(Struct, frozen=True):
    """Those that a bundle may be signed with."""

    by_id: dict[str, Key]
    """Empty where there is one key, which counts whatever id a token names."""
    only: Key | None = None


class _Configured(Struct, frozen=True):
    """One of OPA's `keys`."""

    key: str
    algorithm: str = "RS256"
    scope: str = ""


class _Signatures(Struct, frozen=True):
    signatures: tuple[str, ...] = ()
    plugin: str = ""


class _File(Struct, frozen=True):
    name: str
    hash: str
    algorithm: str


class _Claims(Struct, frozen=True):
    files: tuple[_File, ...]
    keyid: str = ""
    scope: str = ""


def read_keys(path: Path) -> Keys:
    """From a file with a public key or certificate in PEM, a secret, or JSON as OPA's `keys` are configured.

    The latter is `{"ID": {"key": "PEM or secret", "algorithm": "RS256", "scope": "…"}}`. Raises BundleSignatureError.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleSignatureError(f"verification key {path}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise BundleSignatureError(f"verification key {path}: is empty")
    if not content.lstrip().startswith(b"{"):
        return Keys({}, Key(content))
    try:
        configured = msgspec.json.decode(content, type=dict[str, _Configured])
    except msgspec.MsgspecError as error:
        raise BundleSignatureError(f"verification key {path}: is not as OPA's keys are configured: {error}") from None
    if not configured or not all(each.key for each in configured.values()):
        raise BundleSignatureError(f"verification key {path}: holds no key")
    return Keys({name: Key(each.key.encode(), each.scope, each.algorithm) for name, each in configured.items()})


def verify(label: Label, files: Mapping[str, bytes | memoryview], keys: Keys | None) -> None:
    """Nothing where these are the files that one of `keys` has signed, or where there is neither key nor signature.

    Raises BundleSignatureError.
    """
    signatures = files.get(SIGNATURES)
    if keys is None:
        if signatures is not None:
            raise BundleSignatureError(
                f"bundle {label}: is signed, and no verification key is configured: "
                "set its verification_key_file, or use an unsigned bundle"
            )
        return
    if signatures is None:
        raise BundleSignatureError(f"bundle {label}: is not signed, and its verification_key_file is set")
    try:
        claims = _verified(signatures, keys)
        stated = {file.name.lstrip("/"): file for file in claims.files}
        for name in sorted(files.keys() - {SIGNATURES}):
            _compare(name, files[name], stated.pop(name, None))
    except BundleSignatureError as error:
        raise BundleSignatureError(f"bundle {label}: {error}") from None
    if stated:
        raise BundleSignatureError(f"bundle {label}: lacks {min(stated)}, which its signature names")


def signed(files: Mapping[str, bytes], key: bytes, algorithm: str, key_id: str, scope: str) -> dict[str, bytes]:
    """The same files with a signature in place of the one that they may have had. Raises BundleSignatureError."""
    content = {name: bytes_ for name, bytes_ in files.items() if name != SIGNATURES}
    stated = [
        {"name": name, "hash": _digest(name, content[name], "sha256"), "algorithm": "SHA-256"}
        for name in sorted(content)
    ]
    # The claim `keyid` is how older releases of OPA find the key.
    claims = {"files": stated} | {name: value for name, value in (("keyid", key_id), ("scope", scope)) if value}
    token = jws.sign(msgspec.json.encode(claims), key, algorithm, key_id)
    return {**content, SIGNATURES: msgspec.json.encode({"signatures": [token]})}


def _verified(signatures: bytes | memoryview, keys: Keys) -> _Claims:
    try:
        held = msgspec.json.decode(signatures, type=_Signatures)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleSignatureError(f"{SIGNATURES} is not as it should be: {error}") from None
    if held.plugin not in {"", _PLUGIN}:
        raise BundleSignatureError(f"{SIGNATURES} wants the plugin {held.plugin!r}, which only OPA can have")
    if len(held.signatures) != 1:
        raise BundleSignatureError(f"{SIGNATURES} holds {len(held.signatures)} tokens; expected one")
    token = jws.parse(held.signatures[0])
    try:
        claims = msgspec.json.decode(token.payload, type=_Claims)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleSignatureError(f"the token in {SIGNATURES} is not as it should be: {error}") from None
    key = _key(keys, token.key_id or claims.keyid)
    if key.algorithm and key.algorithm != token.algorithm:
        raise BundleSignatureError(f"is signed with {token.algorithm}, and its key is for {key.algorithm}")
    if not jws.is_valid(token, key.content):
        raise BundleSignatureError("its signature was not made with the configured key")
    if claims.scope != key.scope:
        raise BundleSignatureError(f"is signed for the scope {claims.scope!r}, and its key is for {key.scope!r}")
    return claims


def _key(keys: Keys, key_id: str) -> Key:
    if keys.only is not None:
        return keys.only
    if key_id not in keys.by_id:
        raise BundleSignatureError(f"is signed with the key {key_id!r}; the configured ones are {_listed(keys.by_id)}")
    return keys.by_id[key_id]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _compare(name: str, content: bytes | memoryview, stated: _File | None) -> None:
    if stated is None:
        raise BundleSignatureError(f"holds {name}, which its signature does not name")
    algorithm = _DIGESTS.get(stated.algorithm)
    if algorithm is None:
        raise BundleSignatureError(f"its signature has {stated.algorithm!r} for {name}, which proves nothing")
    if _digest(name, content, algorithm) != stated.hash.lower():
        raise BundleSignatureError(f"{name} is not the file that was signed")


def _digest(name: str, content: bytes | memoryview, algorithm: str) -> str:
    if name.rpartition("/")[2] in _STRUCTURED:
        content = _canonical(name, content)
    return hashlib.new(algorithm, content, usedforsecurity=True).hexdigest()


def _canonical(name: str, content: bytes | memoryview) -> bytes:
    """JSON as Go's encoder writes it, keys sorted, numbers as they stand: bundle/hash.go of OPA."""

    def verbatim(number: str) -> Any:
        return msgspec.Raw(number.encode())

    try:
        value = json.loads(bytes(content), parse_int=verbatim, parse_float=verbatim, parse_constant=_refuse_constant)
        text = msgspec.json.encode(value, order="sorted")
    except (ValueError, RecursionError, UnicodeError):
        raise BundleSignatureError(f"{name} is not valid JSON") from None
    # Two characters that may stand in JSON, but not in the JavaScript that Go has in mind.
    return text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)
