"""Tokens of an issuer that a test is, and its keys behind a file or a real server."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from tests.fix_keys import jwk_of, private_key

ISSUER = "https://issuer.example"
AUDIENCE = "sark-pdp"
_ALGORITHMS = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA"}


def token(kind: str = "P-256", number: int = 0, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token of `alice`, valid for an hour, signed with that key; a claim of None is left out."""
    now = int(time.time())
    said: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 3600, **claims}
    given = {name: value for name, value in said.items() if value is not None}
    key_id = {"kid": key_id_of(kind, number)}
    return jwt.encode(given, private_key(kind, number), _ALGORITHMS[kind], {**key_id, **(headers or {})})


def key_id_of(kind: str, number: int = 0) -> str:
    """How the key set calls a key."""
    return f"{kind}-{number}"


def key_set(*keys: tuple[str, int], extra: tuple[dict[str, Any], ...] = ()) -> bytes:
    """The public parts of these keys as a JSON Web Key Set."""
    shown = [
        {**jwk_of(private_key(kind, number).public_key()), "kid": key_id_of(kind, number), "alg": _ALGORITHMS[kind]}
        for kind, number in keys
    ]
    return json.dumps({"keys": [*shown, *extra]}).encode()


class KeyServer:
    """What an issuer has behind its `jwks_uri`; a test changes `content`, `status` and `elsewhere`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.status = 200
        self.elsewhere = ""
        """Where it redirects to, where it does."""
        self.asked = 0
        self.url = ""


@contextmanager
def key_server(content: bytes) -> Iterator[KeyServer]:
    """A real HTTP server on loopback."""
    served = KeyServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            self.send_response(served.status)
            if served.elsewhere:
                self.send_header("Location", served.elsewhere)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/keys"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
