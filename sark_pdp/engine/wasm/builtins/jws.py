"""`io.jwt.*` where it takes keys: signatures are verified and made here. `jwt` has what takes none."""

import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Final

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, array, items, string
from sark_pdp.engine.wasm.builtins.gojson import loads, marshal
from sark_pdp.engine.wasm.builtins.jwk import ALGORITHMS, Key, KeyMaterial, Keys, jwk_set
from sark_pdp.engine.wasm.builtins.jwt import MAX_TOKEN, Token, claims, nested
from sark_pdp.engine.wasm.builtins.signatures import is_signed_as_stated, is_signed_by, sign
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_HEADERS: Final = ("alg", "kid", "typ", "cty")
"""What OPA knows of a header, besides `crit`; strings all."""
_CONSTRAINTS: Final = frozenset({"cert", "secret", "alg", "iss", "aud", "time"})
_SECOND: Final = 1_000_000_000


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    calls = _Jws()
    verified = ("rs256", "rs384", "rs512", "ps256", "ps384", "ps512", "es256", "es384", "es512", "eddsa")
    return {
        **{f"io.jwt.verify_{algorithm}": calls.verify(algorithm) for algorithm in verified},
        "io.jwt.decode_verify": calls.decode_verify,
        "io.jwt.encode_sign": _encode_sign,
        "io.jwt.encode_sign_raw": _encode_sign_raw,
    }


class _Jws:
    """Remembers the keys that it has parsed."""

    def __init__(self) -> None:
        self._keys = Keys()

    def verify(self, algorithm: str) -> Builtin:
        """Whether one of the keys signed the token, whatever algorithm the token itself states."""

        def call(_: Context, operand: Json, certificate: Json) -> bool:
            token = Token(operand)
            keys = self._keys.parsed(string(certificate))
            signature = token.signature()
            header = _Header(token.header())

            def is_by(key: KeyMaterial) -> bool:
                return is_signed_by(key, algorithm, token.signed, signature)

            return _is_by_any(keys, header, is_by)

        return call

    def decode_verify(self, context: Context, operand: Json, operands: Json) -> list[Json]:
        """`[valid, header, claims]`; the latter two are empty where it is not valid."""
        constraints = _Constraints(operands, self._keys, context.now_ns)
        token, depth = Token(operand), 0
        while True:
            raw_header = token.header()
            header = _Header(raw_header)
            if not header.is_understood() or constraints.algorithm not in ("", header.algorithm):
                return _not_valid()
            if not constraints.is_signed(header, token):
                return _not_valid()
            raw_payload = token.raw_payload()
            if header.content_type.upper() != "JWT":
                break
            depth += 1
            token = nested(raw_payload, depth)
        found = claims(raw_payload)
        return [True, raw_header, found] if constraints.are_met(found) else _not_valid()


def _not_valid() -> list[Json]:
    return [False, {}, {}]


class _Header:
    """What a JOSE header says of the signature. Raises BuiltinError where a known part of it is of a wrong type."""

    def __init__(self, header: dict[str, Json]) -> None:
        for name in _HEADERS:
            string(header.get(name, ""))
        self.algorithm: str = header.get("alg", "")
        self.key_id: str = header.get("kid", "")
        self.content_type: str = header.get("cty", "")
        self._unknown_critical: set[str] = set()
        if "crit" in header:
            critical = [name for name in array(header["crit"]) if type(name) is str]
            if not critical:
                raise BuiltinError("crit of a JWT must be an array of strings that is not empty")
            self._unknown_critical = (header.keys() - {*_HEADERS, "crit"}).intersection(critical)

    def is_understood(self) -> bool:
        """Whether it names an algorithm, and nothing critical that is unknown here."""
        return bool(self.algorithm) and not self._unknown_critical


def _is_by_any(keys: Iterable[Key], header: _Header, is_by: Callable[[KeyMaterial], bool]) -> bool:
    """By the key that the token names, or by any that is not for another algorithm."""
    if header.key_id:
        named = next((key for key in keys if key.id == header.key_id), None)
        if named is not None:
            return is_by(named.material)
    return any(is_by(key.material) for key in keys if key.algorithm in ("", header.algorithm))


class _Constraints:
    """What `io.jwt.decode_verify` wants of a token. Raises BuiltinError for constraints that make no sense."""

    def __init__(self, operand: Json, keys: Keys, now_ns: int) -> None:
        given: dict[str, Json] = {}
        for name, value in items(operand):
            if type(name) is not str or name not in _CONSTRAINTS:
                raise BuiltinError("io.jwt.decode_verify: an unknown constraint")
            given[name] = value if name == "time" else string(value)
        self._keys = keys.parsed(given["cert"]) if "cert" in given else None
        self._secret: str = given.get("secret", "")
        if (self._keys is not None) == bool(self._secret):
            raise BuiltinError("io.jwt.decode_verify: either cert or secret must be given")
        self.algorithm: str = given.get("alg", "")
        self._issuer: str = given.get("iss", "")
        self._audience: str = given.get("aud", "")
        self._seconds = _nanoseconds(given.get("time", now_ns)) / _SECOND

    def is_signed(self, header: _Header, token: Token) -> bool:
        """Whether the signature is right."""
        signature = token.signature()

        def is_by(key: KeyMaterial) -> bool:
            return is_signed_as_stated(key, header.algorithm, token.signed, signature)

        return is_by(self._secret.encode()) if self._keys is None else _is_by_any(self._keys, header, is_by)

    def are_met(self, found: dict[str, Json]) -> bool:
        """Whether the claims are as they must be. Raises BuiltinError for a time that is no number."""
        if self._issuer:
            if type(found.get("iss", "")) is not str:
                raise BuiltinError("iss of a JWT must be a string")
            if found.get("iss") != self._issuer:
                return False
        if "aud" not in found:
            if self._audience:
                return False
        elif not self._is_audience(found["aud"]):
            return False
        if "exp" in found and not self._seconds < _time(found["exp"]):
            return False
        return "nbf" not in found or self._seconds >= _time(found["nbf"])

    def _is_audience(self, audience: Json) -> bool:
        if type(audience) is list:
            return any(type(name) is str and name == self._audience for name in audience)
        return type(audience) is str and audience == self._audience


def _nanoseconds(value: Json) -> float:
    if type(value) not in (int, float):
        raise BuiltinError("io.jwt.decode_verify: time must be a number")
    try:
        time = float(value)
    except OverflowError:
        time = math.inf
    if not 0 <= time < math.inf:
        raise BuiltinError("io.jwt.decode_verify: time must be a number of nanoseconds since 1970")
    return time


def _time(value: Json) -> float:
    if type(value) not in (int, float):
        raise BuiltinError("exp and nbf of a JWT must be numbers")
    number: float = value
    return number


def _encode_sign(_: Context, header: Json, payload: Json, key: Json) -> str:
    return _signed(marshal(header).encode(), marshal(payload).encode(), marshal(key).encode())


def _encode_sign_raw(_: Context, header: Json, payload: Json, key: Json) -> str:
    return _signed(string(header).encode(), string(payload).encode(), string(key).encode())


def _signed(header: bytes, payload: bytes, key: bytes) -> str:
    if len(header) + len(payload) > MAX_TOKEN:
        raise LimitError(f"a JWT of more than {MAX_TOKEN} characters is too large for a built-in")
    keys = jwk_set(key)
    if not keys:
        raise BuiltinError("there is no key to sign with")
    stated = loads(header)
    if type(stated) is not dict or type(stated.get("alg")) is not str or stated["alg"] not in ALGORITHMS:
        raise BuiltinError("alg of a JWT is none that is known")
    if type(stated.get("typ")) is not str or stated["typ"] == "JWT":
        # Anything else may be signed where it is not called a JWT.
        loads(payload)
    message = _segment(header) + b"." + _segment(payload)
    return (message + b"." + _segment(sign(keys[0].material, stated["alg"], message))).decode()


def _segment(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")
