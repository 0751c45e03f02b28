"""Verifies JSON Web Tokens (RFC 7519, as RFC 8725 advises): who issued them, for whom, until when, and how."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)
from msgspec import Struct

from sark_pdp.errors import UnauthenticatedError
from sark_pdp.model import Seconds
from sark_pdp.transport.bounds import is_deeper
from sark_pdp.transport.principal.keys import Keys, KeySet

_LONGEST: Final = 8192
"""Characters of a token; Envoy and the front take no longer headers either."""
_DEEPEST: Final = 10
"""Levels of claims: they are a part of the document, which has a limit too."""
_MOST_KNOWN: Final = 1000
_TOO_DEEP: Final = "the token's claims are nested too deep"
_OPTIONS: Final = {"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True}

Claims = Mapping[str, Any]


class Expected(Struct, frozen=True):
    """What a token must be to be believed."""

    issuer: str
    audiences: tuple[str, ...]
    """One of these."""
    algorithms: tuple[str, ...]
    leeway: Seconds
    """By which the clocks of issuer and verifier may differ."""


class _Known(Struct, frozen=True):
    keys: KeySet
    """That it was verified with: another set may lack its key."""
    expires: float
    """Since the epoch."""
    claims: Claims


class Tokens:
    """Verifies tokens, and remembers those that come again. Thread-safe.

    `_known` is written by any thread, with one statement each time; it holds digests: no token can be read in it.
    """

    def __init__(self, keys: Keys, expected: Expected) -> None:
        self._keys = keys
        self._expected = expected
        self._known: dict[bytes, _Known] = {}

    def verify(self, token: str) -> Claims:
        """The claims. Never waits. Raises UnauthenticatedError."""
        if len(token) > _LONGEST:
            raise UnauthenticatedError("the token is too long")
        keys = self._keys.current
        digest = hashlib.blake2b(token.encode(errors="replace"), digest_size=32).digest()
        known = self._known.get(digest)
        if known is not None and known.keys is keys and time.time() < known.expires:
            return known.claims
        claims = self._verified(token, keys)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[digest] = _Known(keys, float(claims["exp"]) + self._expected.leeway, claims)
        return claims

    def _verified(self, token: str, keys: KeySet) -> Claims:
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, RecursionError):
            raise UnauthenticatedError("the token is no signed JSON Web Token") from None
        key = keys.find(header.get("kid"))
        if key is None:
            self._keys.ask()
            raise UnauthenticatedError("the token is signed with a key that is not known")
        expected = self._expected
        try:
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=expected.algorithms,
                audience=expected.audiences,
                issuer=expected.issuer,
                leeway=expected.leeway,
                options=_OPTIONS,  # type: ignore[arg-type]  # a dict that is one of theirs
            )
        except PyJWTError as error:
            raise UnauthenticatedError(_reason(error)) from None
        except RecursionError:
            raise UnauthenticatedError(_TOO_DEEP) from None
        if is_deeper(claims, _DEEPEST):
            raise UnauthenticatedError(_TOO_DEEP)
        return claims


def _reason(error: PyJWTError) -> str:
    match error:
        case ExpiredSignatureError():
            return "the token has expired"
        case ImmatureSignatureError():
            return "the token is not valid yet"
        case InvalidAudienceError():
            return "the token is for somebody else"
        case InvalidIssuerError():
            return "the token is of another issuer"
        case MissingRequiredClaimError():
            return f"the token has no claim {error.claim}"
        case _:
            return "the token is not signed as it must be"
