"""h2load, a client of nghttp2, gets every answer."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.fix_interop import Peer
from tests.interop.raw import message

CALLS = 5000


@pytest.mark.parametrize("path", ["/robust.Echo/Now", "/robust.Echo/Later"])
def test_h2load_gets_every_answer(front_peer: Peer, tmp_path: Path, path: str) -> None:
    body = tmp_path / "message"
    body.write_bytes(message(b"x" * 100))
    options = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body)]
    command = ["h2load", "-n", str(CALLS), "-c", "4", "-m", "32", *options, f"http://{front_peer.target}{path}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert re.search(rf"{CALLS} succeeded, 0 failed, 0 errored", ran.stdout), ran.stdout
