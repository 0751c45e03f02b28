"""A client of the HTTP API: plain requests over TCP, TLS and Unix sockets, with what came back."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from msgspec import Struct

TIMEOUT = 60.0
"""Seconds for what takes milliseconds on an idle machine."""

EVALUATE = "/api/v1/policy/evaluate"
BATCH = "/api/v1/policy/batch-evaluate"
AUTHORIZE = "/api/v1/gateway/authorize"
AUTHORIZE_A2A = "/api/v1/gateway/authorize-a2a"
EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and message of an answer in the shape of errors."""
        assert set(self.json) == {"code", "message"}, self.body
        assert self.headers["content-type"] == "application/json"
        return self.status, self.json["message"]


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


class HttpClient:
    """One connection; a context manager."""

    def __init__(self, target: str, context: ssl.SSLContext | None = None) -> None:
        """`target` is `host:port` or `unix:///path`."""
        if target.startswith("unix://"):
            self.connection: http.client.HTTPConnection = _Unix(target.removeprefix("unix://"))
        elif context is not None:
            self.connection = http.client.HTTPSConnection(target, timeout=TIMEOUT, context=context)
        else:
            self.connection = http.client.HTTPConnection(target, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; header names with underscores for hyphens."""
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return self.answer()

    def answer(self) -> Answer:
        """To what was sent."""
        response = self.connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def post(self, path: str, document: Any, **headers: str) -> Answer:
        """JSON, or bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.request("POST", path, body, content_type="application/json", **headers)

    def get(self, path: str, **headers: str) -> Answer:
        """Without a body."""
        return self.request("GET", path, None, **headers)


def evaluate(client: HttpClient, case: str | None = None, **fields: Any) -> Any:
    """The answer to one question, which there must be; `case` is what the wire policy shall do."""
    asked = fields if case is None else {"case": case, **fields}
    answer = client.post(EVALUATE, asked)
    assert answer.status == 200, answer.body
    return answer.json


def decisions_between(spool: Path, first: str, last: str) -> list[str]:
    """The ids of all decisions after one and before another, both of which were answered already.

    The trail is in the order of answers, and may be behind them.
    """
    from tests.fix_native import event, events

    event(spool, last)
    ids = [each.id for each in events(spool) if each.decision]
    return ids[ids.index(first) + 1 : ids.index(last)]


@contextmanager
def serving_http(sark_pdp: Path, settings: Mapping[str, object]) -> Iterator[Any]:
    """A `Sidecar` that answers over HTTP on a port of its own, where the settings name none."""
    # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
    from tests.fix_native import running
    from tests.fix_serve import free_port

    with running(sark_pdp, {"listen.http": f"127.0.0.1:{free_port()}", **settings}) as served:
        yield served


@pytest.fixture(scope="session")
def wired_http(sark_pdp: Path, wire_bundle: Path, shared_state: str) -> Iterator[Any]:
    """A `Sidecar` with the wire policy and small limits, for tests that leave nothing in flight."""
    from tests.fix_native import SMALL, wire_policy

    settings = {**wire_policy(wire_bundle), **SMALL, "state_dir": shared_state}
    spool = {"audit.spool_dir": "{folder}/audit"}
    with serving_http(sark_pdp, {**settings, **spool}) as served:
        yield served


@pytest.fixture
def wired_api(wired_http: Any) -> Iterator[HttpClient]:
    """One connection to it."""
    with HttpClient(str(wired_http.settings["listen.http"])) as made:
        yield made


@pytest.fixture(scope="session")
def default_http(sark_pdp: Path) -> Iterator[Any]:
    """A `Sidecar` with the default policies."""
    with serving_http(sark_pdp, {}) as served:
        yield served


@pytest.fixture
def default_api(default_http: Any) -> Iterator[HttpClient]:
    """One connection to it."""
    with HttpClient(str(default_http.settings["listen.http"])) as made:
        yield made
