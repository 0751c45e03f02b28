"""What travels beside the messages: metadata both ways, and who called."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sark_pdp.addresses import TcpAddress, UnixAddress
from sark_pdp.errors import StartError
from sark_pdp.model import Seconds
from sark_pdp.observability.metrics import Metrics
from sark_pdp.transport.carrier import MakeServer, Transport, server_kind
from sark_pdp.transport.handler import Kind
from sark_pdp.transport.sockets import give_away
from tests.fix_front import LIMITS, Carried, Echo, failure

pytest.importorskip("sark_pdp._front", reason="the front was not built")

SENT = (("a", "1"), ("b-bin", b"\xff\x00,"), ("a", "2"), ("c", "x=%;"))


@pytest.fixture
def carried() -> Iterator[Carried]:
    made = Carried(TcpAddress("127.0.0.1", 0))
    yield made
    made.close()


@pytest.fixture(params=["front", "grpcio"])
def either(request: pytest.FixtureRequest) -> Iterator[Carried]:
    made = Carried(TcpAddress("127.0.0.1", 0), transport=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_method_that_wants_metadata_gets_what_the_caller_added(either: Carried, timeout: float | None) -> None:
    either.call(b"x", "/a.B/Reader", metadata=SENT, timeout=timeout)
    either.call(b"slow", "/a.B/Reader", metadata=SENT, timeout=timeout)
    for metadata in either.reader.metadata:
        pairs = [pair for pair in metadata.pairs if pair[0] != "user-agent"]
        # Of different names the order says nothing.
        assert sorted(pairs, key=lambda pair: pair[0]) == sorted(SENT, key=lambda pair: pair[0])
        assert dict(metadata.pairs)["user-agent"] == metadata.origin.user_agent
        assert (metadata.deadline < time.monotonic() + 100.0) is (timeout is not None)


def test_a_method_that_does_not_want_metadata_gets_the_trace_alone(either: Carried) -> None:
    trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    either.call(b"x", metadata=SENT)
    either.call(b"x", metadata=(*SENT, trace))
    either.call(b"slow", metadata=(*SENT, trace), timeout=20.0)
    assert [metadata.pairs for metadata in either.unary.metadata] == [(), (trace,), (trace,)]


def test_a_method_cannot_say_what_the_carrier_says(carried: Carried, caplog: pytest.LogCaptureFixture) -> None:
    assert failure(lambda: carried.call(b"own")).details() == "INTERNAL"
    assert "grpc-status: no method can send this metadata" in caplog.text


def test_a_unix_socket_tells_whose_process_calls(short_dir: Path) -> None:
    made = Carried(UnixAddress(short_dir / "front.sock"))
    try:
        made.call(b"x")
        [metadata] = made.unary.metadata
        assert (metadata.origin.uid, metadata.origin.identity) == (os.getuid(), "")
    finally:
        made.close()


def test_tcp_does_not(carried: Carried) -> None:
    carried.call(b"x")
    [metadata] = carried.unary.metadata
    assert metadata.origin.uid is None


@pytest.fixture(params=["front", "grpcio"])
def make_server(request: pytest.FixtureRequest) -> MakeServer:
    transport: Transport = request.param
    return server_kind(transport)


def owner_after(make_server: MakeServer, path: Path, owner: str) -> tuple[int, int, int]:
    server = make_server({"/a.B/Unary": Echo(Kind.UNARY)}, LIMITS, Metrics())
    server.listen(UnixAddress(path), "listen.grpc", 0o620, owner)
    try:
        status = path.stat()
        return status.st_uid, status.st_gid, status.st_mode & 0o777
    finally:
        server.stop(Seconds(0.0))


def test_a_socket_belongs_to_whom_the_setting_names(make_server: MakeServer, short_dir: Path) -> None:
    path, uid, gid = short_dir / "s.sock", os.getuid(), os.getgid()
    assert owner_after(make_server, path, f"{uid}:{gid}") == (uid, gid, 0o620)
    if uid == 0:
        assert owner_after(make_server, path, "4711:4712") == (4711, 4712, 0o620)
        assert owner_after(make_server, path, ":4712") == (0, 4712, 0o620)
        assert owner_after(make_server, path, "root") == (0, gid, 0o620)


def test_a_link_in_the_place_of_a_socket_gives_nothing_else_away(short_dir: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may give files away")
    target, link = short_dir / "target", short_dir / "s.sock"
    target.touch()
    link.symlink_to(target)
    give_away(link, "4711:4712")
    assert (link.lstat().st_uid, link.lstat().st_gid) == (4711, 4712)
    assert (target.stat().st_uid, target.stat().st_gid) == (0, os.getgid())


@pytest.mark.parametrize("owner", ["nobody-of-this-name", ":no-such-group", "99999999999999999999"])
def test_an_owner_who_does_not_exist_is_told(make_server: MakeServer, short_dir: Path, owner: str) -> None:
    with pytest.raises(StartError, match=r"^listen.socket_owner: there is no .* on this machine; use numbers$"):
        owner_after(make_server, short_dir / "s.sock", owner)
