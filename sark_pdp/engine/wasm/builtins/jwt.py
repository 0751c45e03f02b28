"""`io.jwt.decode` and `io.jwt.verify_hs*`: what takes no keys but secrets. `jws` has the rest."""

import hmac
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.builtins.gobase64 import decode_segment
from sark_pdp.engine.wasm.builtins.gojson import loads
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

MAX_TOKEN: Final = 256 * 1024
"""Characters."""
_MAX_NESTED: Final = 32


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "io.jwt.decode": _decode,
        "io.jwt.verify_hs256": _verify_with_secret("sha256"),
        "io.jwt.verify_hs384": _verify_with_secret("sha384"),
        "io.jwt.verify_hs512": _verify_with_secret("sha512"),
    }


class Token:
    """The three parts of a compact JWT, decoded when they are asked for: OPA reports the first that is bad."""

    def __init__(self, operand: Json) -> None:
        text = string(operand)
        if len(text) > MAX_TOKEN:
            raise LimitError(f"a JWT of {len(text)} characters is too large for a built-in; the limit is {MAX_TOKEN}")
        parts = text.split(".")
        if len(parts) != 3:
            raise BuiltinError(f"a JWT must have 3 parts, and has {len(parts)}")
        self._header, self._payload, self._signature = parts
        self.signed = text.rpartition(".")[0].encode()
        """What the signature is over."""

    def header(self) -> dict[str, Json]:
        """The JOSE header; never that of an encrypted token."""
        header = _object(decode_segment(self._header))
        if "enc" in header:
            raise BuiltinError("a JWT that is encrypted")
        return header

    def raw_payload(self) -> bytes:
        """The payload before it is read: claims as JSON, or another token."""
        return decode_segment(self._payload)

    def signature(self) -> bytes:
        """The bytes of the signature."""
        return decode_segment(self._signature)


def claims(raw_payload: bytes) -> dict[str, Json]:
    """The claims in a payload, which must be an object."""
    return _object(raw_payload)


def nested(raw_payload: bytes, depth: int) -> Token:
    """The token in the payload of another one; `depth` of them are around it."""
    if depth >= _MAX_NESTED:
        raise LimitError(f"JWTs are nested more than {_MAX_NESTED} deep")
    return Token(raw_payload.decode(errors="replace"))


def _object(raw: bytes) -> dict[str, Json]:
    value = loads(raw)
    if type(value) is not dict:
        raise BuiltinError("a part of a JWT is no object")
    return value


def _decode(_: Context, operand: Json) -> list[Json]:
    token, depth = Token(operand), 0
    while True:
        header, raw_payload = token.header(), token.raw_payload()
        if type(header.get("cty", "")) is not str:
            raise BuiltinError("cty of a JWT must be a string")
        if header.get("cty") != "JWT":
            return [header, claims(raw_payload), token.signature().hex()]
        depth += 1
        token = nested(raw_payload.strip(b"\"'"), depth)


def _verify_with_secret(algorithm: str) -> Builtin:
    def call(_: Context, operand: Json, secret: Json) -> bool:
        token = Token(operand)
        expected = hmac.digest(string(secret).encode(), token.signed, algorithm)
        return hmac.compare_digest(token.signature(), expected)

    return call
