"""Bundles that change while they are used: files, folders, and servers that behave in every way that servers do."""

import gzip
import http.server
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.bundles.http_source import HttpLocation, HttpSource
from sark_pdp.engine.bundles.keeping import Keeper
from sark_pdp.engine.bundles.sources import FileSource
from sark_pdp.engine.signatures import signed
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import BundleError, InvalidRequestError
from sark_pdp.model import Seconds
from tests.fix_bundles import MakeBundle, data_bundle, delta_bundle, kept, options, served, until, write

LIMIT = 1 << 26
SECRET = b"a secret of some length"


@pytest.fixture
def place(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """A file with a good bundle, marked 1."""
    path = tmp_path / "b.tar.gz"
    write(path, make_bundle(1))
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    return path


def sign(files: dict[str, bytes], key: bytes = SECRET) -> dict[str, bytes]:
    return signed(files, key, "HS256", "", "")


def url_of(server: Any, name: str = "b.tar.gz") -> HttpLocation:
    return HttpLocation(f"http://{server.address}/{name}")


def test_a_file_that_changes_is_activated_and_one_that_does_not_is_not(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle
) -> None:
    with kept(patient_runtime, (options(), FileSource(place, LIMIT))) as running:
        assert running.mark() == 1
        write(place, make_bundle(2))
        until(lambda: running.mark() == 2)
        active = running.policies.active()
        # Written again, touched, and packed in another way: nothing of that is news.
        write(place, make_bundle(2))
        running.bundles.reload("b")
        os.utime(place)
        running.bundles.reload("b")
        write(place, pack_archive(make_bundle(2), level=9))
        running.bundles.reload("")
        assert running.policies.active() is active
        assert running.seen.activated_ == ["r1", "r2"]
        assert running.seen.failures == []


def test_a_folder_is_a_bundle_too(patient_runtime: Runtime, tmp_path: Path, make_bundle: MakeBundle) -> None:
    # As Kubernetes mounts a ConfigMap: links into a folder that is replaced.
    folder = tmp_path / "mounted"
    folder.mkdir()

    def deliver(number: int) -> None:
        fresh = folder / f"..{number}"
        fresh.mkdir()
        for name, content in make_bundle(number).items():
            (fresh / name).write_bytes(content)
        link = folder / "..part"
        link.symlink_to(fresh.name)
        link.replace(folder / "..data")

    deliver(1)
    for name in make_bundle(1):
        (folder / name).symlink_to(Path("..data") / name)
    with kept(patient_runtime, (options(), FileSource(folder, LIMIT))) as running:
        assert running.mark() == 1
        deliver(2)
        until(lambda: running.mark() == 2)


def corrupt(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


Bad = Callable[[MakeBundle], dict[str, bytes] | bytes]
BAD: dict[str, tuple[Bad, str]] = {
    "corrupt": (lambda make: corrupt(pack_archive(make(2))), "is damaged"),
    "cut": (lambda make: pack_archive(make(2))[:-1000], "is truncated"),
    "empty": (lambda _: b"", "not a gzipped tar"),
    "signed, and no key": (lambda make: sign(make(2)), "no verification key is configured"),
    "too large": (lambda make: {**make(2), "data.json": b" " * (LIMIT + 1) + b"{}"}, "more than the"),
    "no module": (lambda make: {**make(2), "policy.wasm": b"\0asm\1\0\0\0 nonsense"}, "valid WebAssembly"),
    "not of OPA": (lambda make: {**make(2), "policy.wasm": b"\0asm\1\0\0\0"}, "not one of OPA's compiler"),
    "an entrypoint that is not there": (
        lambda make: make(2, wasm=[{"entrypoint": "p/none", "module": "/policy.wasm"}]),
        "the module has no entrypoint 'p/none'",
    ),
    "a delta that does not fit": (lambda _: delta_bundle([{"op": "remove", "path": "/p/x"}]), "no such path"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_bundle_leaves_the_old_one_answering_and_the_next_good_one_is_activated(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle, case: str
) -> None:
    bad, message = BAD[case]
    with kept(patient_runtime, (options(), FileSource(place, LIMIT)), max_bytes=LIMIT) as running:
        write(place, bad(make_bundle))
        until(lambda: message in running.error())
        assert running.mark() == 1
        # Said once, however often it is looked at.
        running.bundles.reload("b")
        assert len(running.seen.failures) == 1
        write(place, make_bundle(3))
        until(lambda: running.mark() == 3)
        until(lambda: not running.error())
        assert running.seen.activated_ == ["r1", "r3"]


def test_an_entrypoint_that_fails_on_an_empty_input_is_refused(
    runtime: Runtime, place: Path, make_bundle: MakeBundle, compile_rego: Callable[..., bytes]
) -> None:
    pairs = "some x in numbers.range(1, 1000); some y in numbers.range(1, 1000); y > x"
    slow = compile_rego(f"package p\n\nmarks := count([x | {pairs}])\n", ["p/marks"])
    with kept(runtime, (options(), FileSource(place, LIMIT))) as running:
        files = make_bundle(2, wasm=[{"entrypoint": "p/marks", "module": "/policy.wasm"}], metadata={})
        write(place, {**files, "policy.wasm": slow})
        until(lambda: "the entrypoint p/marks fails on an empty input" in running.error())
        assert running.mark() == 1


def test_a_signed_bundle_is_activated_where_its_key_is_set_and_nothing_else_is(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle, key_file: Path
) -> None:
    write(place, sign(make_bundle(1)))
    with kept(patient_runtime, (options(key_file=key_file), FileSource(place, LIMIT))) as running:
        for files, message in (
            (make_bundle(2), "is not signed"),
            (sign(make_bundle(2), b"another secret of some length"), "not made with the configured key"),
            ({**sign(make_bundle(2)), "data.json": b"{}"}, "data.json is not the file that was signed"),
            (delta_bundle([{"op": "upsert", "path": "/facts/mark", "value": 2}]), "is not signed"),
        ):
            write(place, files)
            until(lambda message=message: message in running.error())  # type: ignore[misc]
            assert running.mark() == 1
        write(place, sign(delta_bundle([{"op": "upsert", "path": "/facts/mark", "value": 3}])))
        until(lambda: running.mark() == 3)


def test_a_delta_changes_the_data_of_what_is_active_and_compiles_nothing(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept(patient_runtime, (options(), FileSource(place, LIMIT))) as running:
        shared = running.policies.entrypoint("p/shared").fingerprint
        marks = running.policies.entrypoint("p/marks").fingerprint
        monkeypatch.setattr(patient_runtime.modules, "_made", None)
        for number in range(2, 6):
            operation = {"op": "replace", "path": "/facts/mark", "value": number}
            write(place, delta_bundle([operation], revision=f"delta {number}"))
            until(lambda number=number: running.mark() == number)  # type: ignore[misc]
        assert running.policies.entrypoint("p/shared").fingerprint == shared
        assert running.policies.entrypoint("p/marks").fingerprint != marks
        assert running.policies.entrypoint("p/marks").revision == "delta 5"
        monkeypatch.undo()
        write(place, make_bundle(9))
        until(lambda: running.mark() == 9)


def test_bundles_are_activated_once_all_are_there_and_again_with_each(
    patient_runtime: Runtime, place: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "lists.tar.gz"
    write(lists, data_bundle({"lists": {"shared": [1]}}))
    configured = [(options(), FileSource(place, LIMIT)), (options("lists"), FileSource(lists, LIMIT))]
    with kept(patient_runtime, *configured) as running:
        assert running.seen.activated_ == ["r1", "d1"]
        assert running.ask("p/shared") == [1]
        kept_module = running.policies.entrypoint("p/marks")
        write(lists, data_bundle({"lists": {"shared": [2]}}, "d2"))
        until(lambda: running.ask("p/shared") == [2])
        assert running.policies.entrypoint("p/marks").fingerprint == kept_module.fingerprint
        write(lists, data_bundle({"facts": {"mark": "stolen"}}, "d3"))
        until(lambda: "both own facts" in running.error("lists"))
        assert (running.mark(), running.error("b")) == (1, "")
        with pytest.raises(InvalidRequestError, match="there are several bundles: b, lists"):
            running.bundles.reload("")
        with pytest.raises(InvalidRequestError, match="there is no bundle 'x'; the configured ones are b, lists"):
            running.bundles.reload("x")


def test_a_file_that_cannot_be_used_stops_the_start(patient_runtime: Runtime, place: Path) -> None:
    place.write_bytes(b"none")
    with (
        pytest.raises(BundleError, match="is not a gzipped tar"),
        kept(patient_runtime, (options(), FileSource(place, LIMIT))),
    ):
        pass


# Servers.


@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_a_server_is_polled_or_holds_the_question_back_until_there_is_news(
    patient_runtime: Runtime, place: Path, make_bundle: MakeBundle, wait: float
) -> None:
    # With long polling nothing is asked for at intervals, so a change that comes came by it.
    interval = 3600.0 if wait else 0.05
    with served(place.parent) as server:
        source = HttpSource(url_of(server), LIMIT)
        with kept(patient_runtime, (options(interval=interval, wait=Seconds(wait)), source)) as running:
            until(lambda: running.seen.activated_ == ["r1"])
            for number in (2, 3):
                write(place, make_bundle(number))
                until(lambda number=number: running.mark() == number)  # type: ignore[misc]
            until(lambda: running.seen.activated_ == ["r1", "r2", "r3"])
            # A question that is held back does not hold back a reload.
            assert running.bundles.reload("b").error == ""


def test_a_token_is_read_again_for_each_request(patient_runtime: Runtime, place: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    with served(place.parent, token="new") as server:
        location = HttpLocation(f"http://{server.address}/b.tar.gz", token_file=token)
        with kept(patient_runtime, (options(), HttpSource(location, LIMIT))) as running:
            until(lambda: "the server answers 401" in running.error())
            token.write_text("new\n")
            until(lambda: running.seen.activated_ == ["r1"])


class Odd(http.server.ThreadingHTTPServer):
    """Answers as `behave` says, which a test replaces; counts what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.behave: Callable[[http.server.BaseHTTPRequestHandler], None] = answering(b"")
        self.asked: list[dict[str, str]] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away on purpose here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Odd
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        self.server.behave(self)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


Behaviour = Callable[[http.server.BaseHTTPRequestHandler], None]


def answering(content: bytes, status: int = 200, length: int | None = None, **headers: str) -> Behaviour:
    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def hanging(handler: http.server.BaseHTTPRequestHandler) -> None:
    server: Any = handler.server
    server.released.wait(60)


def cutting(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def no_http(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def dripping(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(100))
    hanging(handler)


@pytest.fixture
def odd() -> Iterator[Odd]:
    server = Odd()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


TROUBLE: dict[str, tuple[Behaviour, str]] = {
    "500": (answering(b"no", 500), "the server answers 500"),
    "404": (answering(b"", 404), "the server answers 404"),
    "204": (answering(b"", 204), "the server answers 204"),
    "hangs": (hanging, "does not answer in time"),
    "hangs in the middle": (dripping, "does not answer in time"),
    "cuts the connection": (cutting, "cut the connection"),
    "cuts the answer": (answering(b"\x1f\x8b", length=1000), "cut the"),
    "no HTTP": (no_http, "does not answer as HTTP servers do"),
    "nothing": (answering(b""), "answers without a bundle"),
    "a page": (answering(b"<html>"), "is not a gzipped tar"),
    "too much": (answering(b"", length=1 << 40), "cut the"),
    "a loop": (answering(b"", 302, Location="/again"), "redirects more than 5 times"),
    "to a file": (answering(b"", 302, Location="file:///etc/passwd"), "redirects to where anybody could answer"),
    "encoded, and is not": (answering(b"none", Content_Encoding="gzip"), "is not gzip, as its header says"),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_a_server_in_trouble_leaves_the_old_one_answering_and_the_next_good_one_is_activated(
    patient_runtime: Runtime, make_bundle: MakeBundle, odd: Odd, case: str
) -> None:
    behave, message = TROUBLE[case]
    odd.behave = answering(pack_archive(make_bundle(1)), ETag='"1"')
    source = HttpSource(HttpLocation(f"http://{odd.address}/b"), LIMIT, patience=2.0)
    with kept(patient_runtime, (options(), source)) as running:
        until(lambda: running.seen.activated_ == ["r1"])
        odd.behave = behave
        until(lambda: message in running.error())
        assert running.mark() == 1
        odd.behave = answering(pack_archive(make_bundle(2)), ETag='"2"')
        odd.released.set()
        until(lambda: running.mark() == 2)
        until(lambda: not running.error())


def test_what_is_known_is_told_to_the_server(patient_runtime: Runtime, make_bundle: MakeBundle, odd: Odd) -> None:
    good = answering(pack_archive(make_bundle(1)), ETag='"one"')
    not_modified = answering(b"", 304)

    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        (not_modified if handler.headers["If-None-Match"] == '"one"' else good)(handler)

    odd.behave = behave
    with kept(patient_runtime, (options(), HttpSource(HttpLocation(f"http://{odd.address}/b?c=d"), LIMIT))) as running:
        until(lambda: len(odd.asked) > 3)
        assert "if-none-match" not in odd.asked[0]
        assert odd.asked[0]["prefer"] == "modes=snapshot,delta"
        assert {asked["if-none-match"] for asked in odd.asked[1:]} == {'"one"'}
        assert running.seen.activated_ == ["r1"]
        # A bad one does not count as known: the server is told what is active.
        odd.behave = answering(b"none", ETag='"bad"')
        until(lambda: "not a gzipped" in running.error())
        before = len(odd.asked)
        until(lambda: len(odd.asked) > before + 1)
        assert odd.asked[-1]["if-none-match"] == '"one"'
        # Refused once, however often it comes.
        assert len(running.seen.failures) == 1


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "for the transfer": gzip.compress,
    "by a server that calls the archive so": lambda packed: packed,
}


@pytest.mark.parametrize("case", ENCODED)
def test_an_encoding_of_the_transfer_is_taken_off(
    patient_runtime: Runtime, make_bundle: MakeBundle, odd: Odd, case: str
) -> None:
    odd.behave = answering(ENCODED[case](pack_archive(make_bundle(1))), Content_Encoding="gzip")
    with kept(patient_runtime, (options(), HttpSource(HttpLocation(f"http://{odd.address}/b"), LIMIT))) as running:
        until(lambda: running.seen.activated_ == ["r1"])


def test_a_redirect_is_followed_and_the_token_stays_with_its_server(
    patient_runtime: Runtime, place: Path, tmp_path: Path, odd: Odd
) -> None:
    token = tmp_path / "token"
    token.write_text("precious")
    with served(place.parent) as other:
        odd.behave = answering(b"", 302, Location=f"http://{other.address}/b.tar.gz")
        location = HttpLocation(f"http://{odd.address}/b", token_file=token)
        with kept(patient_runtime, (options(), HttpSource(location, LIMIT))) as running:
            until(lambda: running.seen.activated_ == ["r1"])
    assert odd.asked[0]["authorization"] == "Bearer precious"


def test_a_server_that_does_not_wait_is_not_asked_all_the_time(
    patient_runtime: Runtime, make_bundle: MakeBundle, odd: Odd
) -> None:
    odd.behave = answering(pack_archive(make_bundle(1)), ETag='"1"')
    source = HttpSource(HttpLocation(f"http://{odd.address}/b"), LIMIT)
    with kept(patient_runtime, (options(interval=3600.0, wait=Seconds(60.0)), source)) as running:
        until(lambda: running.seen.activated_ == ["r1"])
        odd.behave = answering(b"", 304)
        running.bundles.reload("b")
        assert len(odd.asked) <= 4
        assert odd.asked[0]["prefer"] == "modes=snapshot,delta;wait=60"


def test_too_many_deltas_in_a_row_make_it_ask_for_a_whole_bundle(
    patient_runtime: Runtime, make_bundle: MakeBundle, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sark_pdp.engine.bundles.supply._MOST_DELTAS", 3)
    numbers = itertools.count(1)

    def behave(handler: http.server.BaseHTTPRequestHandler) -> None:
        number = next(numbers)
        files = delta_bundle([{"op": "upsert", "path": "/facts/mark", "value": number}])
        whole = "delta" not in handler.headers["Prefer"] or "If-None-Match" not in handler.headers
        answering(pack_archive(make_bundle(number) if whole else files), ETag=f'"{number}"')(handler)

    odd.behave = behave
    with kept(patient_runtime, (options(), HttpSource(HttpLocation(f"http://{odd.address}/b"), LIMIT))) as running:
        until(lambda: len(odd.asked) > 12)
        until(lambda: running.mark() > 12)
        wholes = [index for index, asked in enumerate(odd.asked[:12]) if "delta" not in asked["prefer"]]
        assert wholes == [4, 8]
        assert running.seen.failures == []


def test_the_last_good_bundle_starts_without_the_server(
    patient_runtime: Runtime, place: Path, tmp_path: Path, make_bundle: MakeBundle, key_file: Path
) -> None:
    folder = tmp_path / "kept"
    write(place, sign(make_bundle(1)))
    with served(place.parent) as server:
        location = url_of(server)

        def configured() -> Any:
            return options(keeper=Keeper(folder, "b"), key_file=key_file), HttpSource(location, LIMIT)

        with kept(patient_runtime, configured()) as running:
            until(lambda: running.seen.activated_ == ["r1"])
            write(place, sign(delta_bundle([{"op": "upsert", "path": "/facts/mark", "value": 5}], revision="d5")))
            until(lambda: running.mark() == 5)
            write(place, b"none")
            until(lambda: running.error() != "")
    with kept(patient_runtime, configured()) as running:
        # With what was changed since, and without what was refused.
        assert (running.mark(), running.seen.activated_) == (5, ["d5"])
        until(lambda: "nobody listens there" in running.error())
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    for spoil in (
        lambda: key_file.write_bytes(b"another secret of some length"),
        lambda: file.chmod(0o666),
        lambda: file.write_bytes(b"none"),
    ):
        spoil()
        with kept(patient_runtime, configured()) as running:
            assert running.seen.activated_ == []


def test_what_another_server_delivered_is_not_begun_with(patient_runtime: Runtime, place: Path, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept", "b")
    with served(place.parent) as server:
        with kept(patient_runtime, (options(keeper=keeper), HttpSource(url_of(server), LIMIT))) as running:
            until(lambda: running.seen.activated_ == ["r1"])
        other = HttpLocation(f"http://{server.address}/other.tar.gz")
        with kept(patient_runtime, (options(keeper=keeper), HttpSource(other, LIMIT))) as running:
            until(lambda: "answers 404" in running.error())
            assert running.seen.activated_ == []
