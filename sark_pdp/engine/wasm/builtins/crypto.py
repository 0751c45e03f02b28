"""`crypto.*`: hashes and message authentication."""

import hmac
from collections.abc import Callable
from hashlib import md5, sha1, sha256
from typing import Any

from sark_pdp.engine.wasm.builtins.base import Builtin, Context, string
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {
        "crypto.md5": _hash(md5),
        "crypto.sha1": _hash(sha1),
        "crypto.sha256": _hash(sha256),
        "crypto.hmac.md5": _mac("md5"),
        "crypto.hmac.sha1": _mac("sha1"),
        "crypto.hmac.sha256": _mac("sha256"),
        "crypto.hmac.sha512": _mac("sha512"),
        "crypto.hmac.equal": _equal,
    }


def _hash(algorithm: Callable[..., Any]) -> Builtin:
    def call(_: Context, text: Json) -> str:
        # The policy decides what it compares digests with: nothing here relies on their strength.
        digest: str = algorithm(string(text).encode(), usedforsecurity=False).hexdigest()
        return digest

    return call


def _mac(algorithm: str) -> Builtin:
    def call(_: Context, text: Json, key: Json) -> str:
        return hmac.new(string(key).encode(), string(text).encode(), algorithm).hexdigest()

    return call


def _equal(_: Context, left: Json, right: Json) -> bool:
    return hmac.compare_digest(string(left).encode(), string(right).encode())
