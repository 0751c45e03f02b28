"""The cluster's API, as far as a process of its own needs it: one request at a time, over a connection of its own."""

import http.client
import json
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

_PATIENCE: Final = 5.0
"""Seconds for one request."""
_MOST: Final = 2**23
"""Bytes of an answer; an object has 1.5 MiB at most."""


class Api(Struct, frozen=True):
    """Where it is, and what proves who asks."""

    url: str
    token_file: Path
    """Read for each request, for it rotates."""
    ca_file: Path


class RefusedError(Exception):
    """The API server did not do what it was asked."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the API server answers {status}: {reason}")
        self.status = status


def ask(api: Api, method: str, path: str, body: object = None, agent: str = "sark-pdp") -> dict[str, Any]:
    """The object that is answered. Raises OSError, HTTPException, ValueError or RefusedError."""
    url = urlsplit(api.url)
    # Made anew each time: authorities rotate too, and requests are rare.
    context = ssl.create_default_context(cafile=str(api.ca_file))
    connection = http.client.HTTPSConnection(url.hostname or "", url.port or 443, timeout=_PATIENCE, context=context)
    try:
        connection.request(
            method,
            url.path.rstrip("/") + path,
            None if body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {api.token_file.read_text().strip()}",
                "Content-Type": "application/json",
                "User-Agent": agent,
            },
        )
        answer = connection.getresponse()
        content = answer.read(_MOST)
        if answer.status not in {HTTPStatus.OK, HTTPStatus.CREATED}:
            raise RefusedError(answer.status, _reason(content))
        found: dict[str, Any] = json.loads(content)
        return found
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    """What a Status says, or the beginning of whatever else came."""
    try:
        return str(json.loads(body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return repr(body[:100])
