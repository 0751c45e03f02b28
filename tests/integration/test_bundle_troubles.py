"""What goes wrong between bundles, or by a server that means harm: how it ends, and what is told of it."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.bundles import http_source
from sark_pdp.engine.bundles.http_source import HttpLocation, HttpSource
from sark_pdp.engine.bundles.sources import Delivery, FileSource, InterruptedFetchError, Versions
from sark_pdp.engine.policies import BundleState
from sark_pdp.engine.signatures import signed
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import BundleSourceError
from sark_pdp.model import Seconds
from tests.fix_bundles import MakeBundle, Running, data_bundle, delta_bundle, kept, options, until, write

LIMIT = 1 << 26
OLD, NEW = b"a secret of some length", b"another secret of some length"
NOTHING = Seconds(0.0)


@pytest.fixture
def place(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """A file with a good bundle, marked 1."""
    path = tmp_path / "b.tar.gz"
    write(path, make_bundle(1))
    return path


class Scripted(http.server.ThreadingHTTPServer):
    """Answers with what `answer` makes of the request's headers: status, ETag, content."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[Any], tuple[int, str, bytes]]) -> None:
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/b"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away on purpose here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, etag, content = self.server.answer(self.headers)
        self.send_response(status)
        # A redirect has a place where the others have a version.
        self.send_header("Location" if 300 < status < 304 else "ETag", etag)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[Any], tuple[int, str, bytes]]], Scripted]]:
    """Starts servers."""
    started: list[tuple[Scripted, threading.Thread]] = []

    def start(answer: Callable[[Any], tuple[int, str, bytes]]) -> Scripted:
        server = Scripted(answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def test_after_a_delta_that_is_refused_a_whole_bundle_is_asked_for(
    patient_runtime: Runtime, make_bundle: MakeBundle, tmp_path: Path, scripted: Callable[..., Scripted]
) -> None:
    # The key is replaced between a bundle and its first delta: with the new one, the old archive does not count.
    key_file = tmp_path / "key"
    key_file.write_bytes(OLD)
    delta = delta_bundle([{"op": "upsert", "path": "/facts/mark", "value": 2}])

    def answer(headers: Any) -> tuple[int, str, bytes]:
        if key_file.read_bytes() == OLD:
            return 200, '"1"', pack_archive(signed(make_bundle(1), OLD, "HS256", "", ""))
        if headers["If-None-Match"] == '"2"':
            return 304, '"2"', b""
        files = delta if "delta" in headers["Prefer"] else make_bundle(2)
        return 200, '"2"', pack_archive(signed(files, NEW, "HS256", "", ""))

    source = HttpSource(HttpLocation(scripted(answer).url), LIMIT)
    with kept(patient_runtime, (options(key_file=key_file), source)) as running:
        until(lambda: running.seen.activated_ == ["r1"])
        key_file.write_bytes(NEW)
        until(lambda: running.seen.activated_ == ["r1", "r2"])
        until(lambda: not running.error())
        assert [
            message for _, message in running.seen.failures if "not made with the configured key" not in message
        ] == []


def test_a_server_that_goes_back_to_what_is_active_is_in_order_again(
    patient_runtime: Runtime, make_bundle: MakeBundle, scripted: Callable[..., Scripted]
) -> None:
    bad = threading.Event()

    def answer(headers: Any) -> tuple[int, str, bytes]:
        if bad.is_set():
            return 200, '"bad"', b"none"
        if headers["If-None-Match"] == '"1"':
            return 304, '"1"', b""
        return 200, '"1"', pack_archive(make_bundle(1))

    source = HttpSource(HttpLocation(scripted(answer).url), LIMIT)
    with kept(patient_runtime, (options(), source)) as running:
        until(lambda: running.seen.activated_ == ["r1"])
        bad.set()
        until(lambda: "is not a gzipped tar" in running.error())
        bad.clear()
        until(lambda: not running.error())
        assert running.seen.activated_ == ["r1"]


def test_deltas_that_take_too_much_together_are_refused(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle
) -> None:
    limit = 3 * place.stat().st_size
    with kept(patient_runtime, (options(), FileSource(place, LIMIT)), max_bytes=limit) as running:
        for number in range(2, 40):
            # Not to be packed: each is as large as its text.
            noise = "".join(chr(0x4E00 + (number * 7919 + step * step) % 20_000) for step in range(limit // 24))
            operations = [{"op": "upsert", "path": path, "value": value}
                          for path, value in (("/facts/noise", noise), ("/facts/mark", number))]  # fmt: skip
            write(place, delta_bundle(operations))
            running.bundles.reload("b")
            if running.error():
                break
        assert "is larger with its deltas than the" in running.error()
        assert running.mark() == number - 1
        write(place, make_bundle(50))
        until(lambda: running.mark() == 50)


def states(running: Running) -> dict[str, BundleState]:
    return {state.name: state for state in running.bundles.states()}


def test_a_bundle_that_waits_for_another_one_is_not_told_to_be_active(
    patient_runtime: Runtime, place: Path, scripted: Callable[..., Scripted]
) -> None:
    there = threading.Event()

    def answer(_: Any) -> tuple[int, str, bytes]:
        return (200, '"1"', pack_archive(data_bundle({"lists": {}}))) if there.is_set() else (404, "", b"")

    source = HttpSource(HttpLocation(scripted(answer).url), LIMIT)
    with kept(patient_runtime, (options(), FileSource(place, LIMIT)), (options("lists"), source)) as running:
        until(lambda: "answers 404" in running.error("lists"))
        assert states(running)["b"] == BundleState("b")
        there.set()
        # Both are told of: the first activation was one of both.
        until(lambda: running.seen.activated_ == ["r1", "d1"])
        assert [states(running)[name].revision for name in ("b", "lists")] == ["r1", "d1"]


def test_a_root_may_move_from_one_bundle_to_another_in_any_order(
    patient_runtime: Runtime, place: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    lists = tmp_path / "lists.tar.gz"
    write(lists, data_bundle({"lists": {"shared": [1]}, "moving": 1}))
    configured = [(options(), FileSource(place, LIMIT)), (options("lists"), FileSource(lists, LIMIT))]
    with kept(patient_runtime, *configured) as running:
        write(place, make_bundle(2, roots=["p", "facts", "moving"]))
        until(lambda: "both own moving" in running.error("b"))
        assert running.mark() == 1
        write(lists, data_bundle({"lists": {"shared": [2]}}, "d2"))
        # Nobody has to touch the first one again.
        until(lambda: running.mark() == 2)
        until(lambda: not running.error("b"))


def test_a_refusal_names_the_bundle_whose_module_is_at_fault(
    patient_runtime: Runtime, place: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    lists = tmp_path / "lists.tar.gz"
    write(lists, data_bundle({"lists": {}}))
    with kept(
        patient_runtime, (options(), FileSource(place, LIMIT)), (options("lists"), FileSource(lists, LIMIT))
    ) as running:
        write(place, {**make_bundle(2), "policy.wasm": b"\0asm\1\0\0\0 nonsense"})
        until(lambda: running.error("b") == "bundle b: policy.wasm: the module is not valid WebAssembly")


def test_an_interruption_just_before_a_fetch_is_not_lost(scripted: Callable[..., Scripted]) -> None:
    server = scripted(lambda _: (200, '"1"', b"content"))
    source = HttpSource(HttpLocation(server.url), LIMIT)
    source.interrupt()
    with pytest.raises(InterruptedFetchError):
        source.fetch(Versions(), Seconds(30.0))
    assert source.fetch(Versions(), NOTHING) == Delivery(b"content", '"1"')


@pytest.mark.parametrize("target", ["http://192.0.2.1/b", "https:///b", "ftp://127.0.0.1/b"])
def test_a_redirect_does_not_lead_to_plain_http_elsewhere(scripted: Callable[..., Scripted], target: str) -> None:
    source = HttpSource(HttpLocation(scripted(lambda _: (302, target, b"")).url), LIMIT)
    with pytest.raises(BundleSourceError, match="redirects to where anybody could answer"):
        source.fetch(Versions(), NOTHING)


def test_a_handshake_that_drips_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "_DOWNLOAD", 0.5)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                # The header of a record of 16 KiB, then one byte now and then: each comes within the client's patience.
                connection.sendall(b"\x16\x03\x03\x40\x00")
                while not done.wait(0.1):
                    try:
                        connection.sendall(b"\x02")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        source = HttpSource(HttpLocation(f"https://127.0.0.1:{listener.getsockname()[1]}/b"), LIMIT)
        try:
            with pytest.raises(BundleSourceError):
                source.fetch(Versions(), NOTHING)
        finally:
            done.set()
            thread.join()
