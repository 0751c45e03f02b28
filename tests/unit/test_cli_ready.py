"""`sark-pdp ready` where what listens is no process of ours; tests of each process ask it where it is one."""

import socket
import threading

import pytest
from click.testing import CliRunner

from sark_pdp.cli import main


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 503 No\r\nContent-Length: 16\r\n\r\n\x1b]0;owned\x07\nnext",
            "not ready: \ufffd]0;owned\ufffd next\n",
        ),
        (b"HTTP/1.1 503 No\r\nContent-Length: 5000\r\n\r\n" + 5000 * b"x", f"not ready: {1024 * 'x'}\n"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer in HTTP: SSH-2.0-OpenSSH_9.2\n"),
    ],
    ids=["another sentence", "a long one", "another protocol"],
)
def test_what_a_stranger_answers_is_shown_as_one_line(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def once() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        answering = threading.Thread(target=once)
        answering.start()
        address = "{}:{}".format(*listening.getsockname())
        result = CliRunner().invoke(main, ["ready", "--address", address], env={})
        answering.join()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(said)
