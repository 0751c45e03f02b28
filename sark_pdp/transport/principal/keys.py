"""The keys that tokens are signed with: a JSON Web Key Set (RFC 7517) in a file or behind a URL, kept up to date."""

import http.client
import json
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError
from msgspec import Struct

from sark_pdp.errors import SarkError, StartError
from sark_pdp.model import Seconds

_MOST_BYTES: Final = 1 << 20
_TIMEOUT: Final = 5.0
_SHORTEST_INTERVAL: Final = Seconds(10.0)
"""Between two readings, whoever asks for one: a stranger can make key ids up."""
_LONGEST_TRUST: Final = Seconds(24 * 3600.0)
"""A key that was withdrawn while its source is away is believed no longer than this."""

_log = logging.getLogger(__name__)


class UnusableKeysError(SarkError):
    """A key set cannot be had; the message is the end of a sentence."""


class KeySource(Protocol):
    """Where the keys are."""

    def read(self) -> bytes:
        """A key set as JSON. Raises UnusableKeysError."""


class KeyFile(Struct, frozen=True):
    """A file that may be replaced at any time."""

    path: Path

    def read(self) -> bytes:
        """The file as it is now."""
        try:
            with self.path.open("rb") as file:
                return file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise UnusableKeysError(f"{self.path} cannot be read: {error.strerror}") from error


class KeyUrl(Struct, frozen=True):
    """A server, as an issuer's `jwks_uri`."""

    url: str
    ca_file: Path | None = None
    """Authorities of the server, PEM; the system's own without it."""

    def read(self) -> bytes:
        """Asks the server; waits for it at most 5 s each time that it is silent. Goes nowhere else."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file) if self.url.startswith("https:") else None
            asked = urllib.request.Request(self.url, headers={"Accept": "application/json"})  # noqa: S310  # http(s) by the settings
            handlers: list[Any] = [_Staying, urllib.request.HTTPSHandler(context=context)]
            if context is None:
                # A proxy of the environment could answer in the server's place; over TLS it cannot.
                handlers.append(urllib.request.ProxyHandler({}))
            opener = urllib.request.build_opener(*handlers)
            with opener.open(asked, timeout=_TIMEOUT) as answer:
                content: bytes = answer.read(_MOST_BYTES + 1)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnusableKeysError(f"{self.url} cannot be read: {getattr(error, 'reason', error)}") from error
        return content


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the settings say whose keys are believed, and might promise TLS."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> NoReturn:
        """Raises UnusableKeysError."""
        raise UnusableKeysError(f"{req.full_url} redirects to {newurl}; name that in principal.jwt.jwks_url")


class KeySet(Struct, frozen=True):
    """Keys that were read at one time."""

    by_id: Mapping[str, PyJWK]
    only: PyJWK | None
    """The key, where there is one alone: a token need not name it then."""

    def find(self, key_id: str | None) -> PyJWK | None:
        """None where no key has this id."""
        return self.only if key_id is None else self.by_id.get(key_id)


_NONE: Final = KeySet({}, None)


class Keys:
    """Reads the keys now and then, on a thread of its own; `current` never waits.

    `_current`, `_content`, `_read_at` and `_problem` are written by that thread, and by `start` before it.
    """

    def __init__(self, source: KeySource, interval: Seconds) -> None:
        self._source = source
        self._interval = max(interval, Seconds(1.0))
        self._current = _NONE
        self._content: bytes | None = None
        self._read_at = float("-inf")
        self._problem = "they were not read yet"
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="principal-keys", daemon=True)

    def start(self) -> None:
        """Reads a file at once. Raises StartError where that is no key set; a server may be away at the start."""
        try:
            if isinstance(self._source, KeyFile):
                self._read()
        except UnusableKeysError as error:
            raise StartError(f"principal.jwt.jwks_file: {error}") from error
        self._thread.start()

    def close(self) -> None:
        """Waits for the thread, which may be waiting for a server, no longer than that takes."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join(_TIMEOUT)

    @property
    def current(self) -> KeySet:
        """The keys that are believed now; the same object until they are read anew with another content."""
        return self._current if time.monotonic() - self._read_at < _LONGEST_TRUST else _NONE

    def ask(self) -> None:
        """Somebody has a key that is not known: reads again soon, but not at once for each who says so."""
        self._wanted.set()

    def problems(self) -> list[str]:
        """What an operator should know."""
        return [f"the keys of principal.jwt cannot be had: {self._problem}"] if self._problem else []

    def _run(self) -> None:
        pause = self._interval if isinstance(self._source, KeyFile) else Seconds(0.0)
        while True:
            self._wanted.wait(pause)
            if self._stopping.is_set():
                return
            self._wanted.clear()
            try:
                self._read()
            except UnusableKeysError as error:
                if str(error) != self._problem:
                    _log.warning("the keys that tokens are signed with cannot be had", extra={"problem": str(error)})
                self._problem = str(error)
            except Exception:  # noqa: BLE001 (whatever it is, the next read comes)
                # A thread that ended would leave keys believed that were withdrawn, without a word.
                _log.exception("the keys that tokens are signed with were not read")
                self._problem = "the keys were not read, for a reason that the log has"
            if self._stopping.wait(min(_SHORTEST_INTERVAL, self._interval)):
                return
            pause = Seconds(max(self._interval - _SHORTEST_INTERVAL, 0.0))

    def _read(self) -> None:
        content = self._source.read()
        if content != self._content:
            self._current = _parsed(content)
            self._content = content
        self._read_at = time.monotonic()
        self._problem = ""


def _parsed(content: bytes) -> KeySet:
    if len(content) > _MOST_BYTES:
        raise UnusableKeysError("what was read is too large to be a key set")
    try:
        found = json.loads(content)
        if not isinstance(found, dict):
            raise UnusableKeysError("what was read is no JSON Web Key Set")
        keys = PyJWKSet.from_dict(found).keys
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, PyJWTError) as error:
        raise UnusableKeysError("what was read is no JSON Web Key Set") from error
    # A secret in a published set could be used by whoever reads it; a key for encryption signs nothing.
    usable = [key for key in keys if key.key_type != "oct" and key.public_key_use in (None, "sig")]
    if not usable:
        raise UnusableKeysError("the key set has no public key that signatures could be checked with")
    by_id = {key.key_id: key for key in usable if isinstance(key.key_id, str)}
    return KeySet(by_id, usable[0] if len(usable) == 1 else None)
