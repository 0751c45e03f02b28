"""A process that cannot start says why in one line, exits with 2 and leaves nothing half started."""

import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec import Struct

from sark_pdp.engine.archive import pack_archive, read_archive
from tests.fix_native import Channel, assert_quiet
from tests.fix_serve import Serve, Sidecar, free_port

Arrange: TypeAlias = "Callable[[Place], dict[str, object]]"


class Place(Struct, frozen=True):
    """What a case may use to make something unusable."""

    folder: Path
    bundle: Path
    """A good one."""

    def file(self, name: str, content: bytes = b"") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def packed(self, change: Callable[[dict[str, bytes]], Any]) -> dict[str, object]:
        """Settings with a bundle of changed files."""
        files = {name: bytes(content) for name, content in read_archive(self.bundle, 1 << 30)[0].items()}
        change(files)
        return bundle_at(self.file("changed.tar.gz", pack_archive(files)))


def bundle_at(path: Path) -> dict[str, object]:
    return {"policy.bundles": [{"name": "mine", "path": str(path)}]}


def truncated(place: Place) -> dict[str, object]:
    return bundle_at(place.file("cut.tar.gz", place.bundle.read_bytes()[:-1000]))


def corrupt(place: Place) -> dict[str, object]:
    content = bytearray(place.bundle.read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bundle_at(place.file("corrupt.tar.gz", bytes(content)))


def without_policy(place: Place) -> dict[str, object]:
    return place.packed(lambda files: [files.pop(name) for name in list(files) if name.endswith("policy.wasm")])


def with_a_broken_policy(place: Place) -> dict[str, object]:
    return place.packed(lambda files: files.update({"policy.wasm": files["policy.wasm"][:5000]}))


def socket_that_is_none(place: Place) -> dict[str, object]:
    return {"listen.grpc": f"unix://{place.file('plain.file', b'precious')}"}


def folder_in_place_of_a_socket(place: Place) -> dict[str, object]:
    return {"listen.grpc": f"unix://{place.folder}"}


def certificate_that_is_none(place: Place) -> dict[str, object]:
    return {"tls.cert_file": str(place.file("no.pem", b"none")), "tls.key_file": str(place.file("no.key", b"none"))}


CASES: dict[str, tuple[Arrange, str]] = {
    "truncated bundle": (truncated, "cut.tar.gz: is truncated"),
    "corrupt bundle": (corrupt, "corrupt.tar.gz: is damaged"),
    "a bundle that is none": (lambda place: bundle_at(place.file("no.tar.gz", b"PK\3\4")), "is not a gzipped tar"),
    "an empty bundle": (lambda place: bundle_at(place.file("empty.tar.gz")), "is not a gzipped tar archive"),
    "no bundle": (lambda place: bundle_at(place.folder / "no.tar.gz"), "policy.bundles[0].path: "),
    "no policy.wasm": (without_policy, "holds no policy.wasm"),
    "a broken policy.wasm": (with_a_broken_policy, "policy.wasm"),
    "wrong unit": (lambda _: {"cache.l1.ttl": "10 parsecs"}, "cache.l1.ttl: '10 parsecs' (flag) is not a length"),
    "no unit": (lambda _: {"limits.eval_timeout": "50"}, "limits.eval_timeout: '50' (flag) is not a length of time"),
    "unknown key": (lambda _: {"cache.l1.sise": "5"}, "cache.l1.sise: there is no such setting"),
    "exposed without TLS": (lambda _: {"listen.grpc": f"0.0.0.0:{free_port()}"}, "listen.grpc: '0.0.0.0:"),
    "no socket": (socket_that_is_none, "plain.file exists and is no socket"),
    "a folder": (folder_in_place_of_a_socket, "exists and is no socket"),
    "no folder for the socket": (
        lambda place: {"listen.grpc": f"unix://{place.folder}/none/pdp.sock"},
        "none of the socket does not exist",
    ),
    "no folder for the admin socket": (
        lambda place: {"listen.admin": f"unix://{place.file('occupied')}/admin.sock"},
        "listen.admin: the folder ",
    ),
    "a certificate that is none": (certificate_that_is_none, "tls.cert_file and tls.key_file: "),
    "a spool that is a file": (lambda place: {"audit.spool_dir": str(place.file("spool"))}, "audit spool directory"),
    "a spool that cannot be written": (lambda _: {"audit.spool_dir": "/proc/sark"}, "audit spool directory /proc/sark"),
    "an address of another machine": (
        lambda _: {"listen.grpc": "192.0.2.1:9001", "listen.insecure": "true"},
        "listen.grpc: cannot listen on 192.0.2.1:9001",
    ),
}


@pytest.fixture
def place(short_dir: Path, wire_bundle: Path) -> Place:
    return Place(short_dir, wire_bundle)


def assert_refused(served: Sidecar, message: str) -> None:
    """It ended with one line that says this, and with nothing left of it."""
    assert served.wait_exit() == 2
    *log, line = served.log.splitlines()
    assert line.startswith("sark-pdp: ")
    assert message in line
    assert_quiet("\n".join(log))
    assert served.output == ""
    assert not [path for path in served.folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    for key in ("listen.grpc", "listen.metrics"):
        host, _, port = str(served.settings[key]).rpartition(":")
        if host == "127.0.0.1":
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) != 0


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_named(serve: Serve, place: Place, shared_state: str, case: str) -> None:
    arrange, message = CASES[case]
    settings = arrange(place)
    assert_refused(serve({"state_dir": shared_state, **settings}), message)
    precious = place.folder / "plain.file"
    assert not precious.exists() or precious.read_bytes() == b"precious"


def test_a_bundle_that_needs_a_built_in_that_there_is_not_names_it(
    serve: Serve, place: Place, opa: Path, shared_state: str
) -> None:
    rego = place.file("calls.rego", b"package calls\n\nallow if http.send({}).status_code == 200\n")
    bundle = place.folder / "calls.tar.gz"
    build = [str(opa), "build", "-t", "wasm", "-e", "calls/allow", "-o", str(bundle), str(rego)]
    subprocess.run(build, check=True, capture_output=True)
    assert_refused(serve({"state_dir": shared_state, **bundle_at(bundle)}), "http.send")


@pytest.mark.parametrize("key", ["listen.grpc", "listen.metrics"])
def test_a_port_in_use_is_named(serve: Serve, shared_state: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        served = serve({"state_dir": shared_state, key: address})
        assert served.wait_exit() == 2
    line = served.log.splitlines()[-1]
    assert line.startswith(f"sark-pdp: {key}: cannot listen on {address}: Address already in use")
    assert_quiet("".join(served.log.splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize("key", ["listen.grpc", "listen.admin"])
def test_a_socket_that_somebody_listens_on_is_left_to_them(
    serve: Serve, place: Place, shared_state: str, key: str
) -> None:
    path = place.folder / "taken.sock"
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(path))
        holder.listen()
        assert_refused(
            serve({"state_dir": shared_state, key: f"unix://{path}"}), f"{key}: another process listens on {path}"
        )
        assert stat.S_ISSOCK(path.lstat().st_mode)


def test_a_socket_that_nobody_listens_on_any_more_is_replaced(serve: Serve, place: Place, shared_state: str) -> None:
    path = place.folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    served = serve({"state_dir": shared_state, "listen.grpc": f"unix://{path}"})
    served.wait_ready()
    with Channel(served.grpc) as channel:
        assert channel.check(action="nothing known").reason
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert served.stop() == 0
    assert not path.exists()


def test_a_second_process_on_a_spool_is_refused_and_the_first_goes_on(serve: Serve, shared_state: str) -> None:
    first = serve({"state_dir": shared_state})
    first.wait_ready()
    second = serve({"state_dir": shared_state, "audit.spool_dir": str(first.spool_dir)})
    assert_refused(second, f"has a writer already (process {first.process.pid})")
    with Channel(first.grpc) as channel:
        assert channel.check(action="nothing known").decision_id


def test_a_spool_that_is_none_is_set_aside_and_kept(serve: Serve, place: Place, shared_state: str) -> None:
    spool = place.folder / "audit"
    spool.mkdir()
    none = b"not a database" * 1000
    (spool / "audit.db").write_bytes(none)
    served = serve({"state_dir": shared_state, "audit.spool_dir": str(spool)})
    served.wait_ready()
    assert "the audit spool is damaged" in served.log
    assert served.stop() == 0
    assert [file.read_bytes() for file in spool.glob("audit.db.damaged-*")] == [none]


def test_a_state_folder_that_cannot_be_written_costs_compiling_alone(serve: Serve, place: Place) -> None:
    served = serve({"state_dir": str(place.file("state"))})
    served.wait_ready()
    assert "compiled policies cannot be kept" in served.log
    assert served.stop() == 0
