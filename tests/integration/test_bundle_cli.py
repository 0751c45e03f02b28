"""`sark-pdp bundle sign|verify|diff|serve` as a person runs them."""

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fix_bundles import MakeBundle, data_bundle, until, write
from tests.fix_serve import free_port

SECRET = "a secret of some length"


class Command:
    """The command, in a folder of its own with the bundles `one` and `other` and two keys."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self.folder = program, folder

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        command: list[str | Path] = [self._program, "bundle", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def command(sark_pdp: Path, tmp_path: Path, make_bundle: MakeBundle) -> Command:
    write(tmp_path / "one.tar.gz", make_bundle(1))
    write(tmp_path / "other.tar.gz", make_bundle(2))
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "foreign").write_text("another secret of some length")
    return Command(sark_pdp, tmp_path)


def test_a_signed_bundle_is_verified_with_its_key_alone(command: Command) -> None:
    code, out, _ = command.run("sign", "one.tar.gz", "--key", "key", "--alg", "HS256", "--output", "signed.tar.gz")
    assert (code, out) == (0, "signed.tar.gz: signed with HS256\n")
    code, out, _ = command.run("verify", "signed.tar.gz", "--key", "key")
    assert (code, out) == (0, "signed.tar.gz: revision r1 is sound; 2 entrypoints, 1 modules\n")
    for arguments, problem in (
        (("verify", "signed.tar.gz"), "is signed, and no verification key is configured"),
        (("verify", "signed.tar.gz", "--key", "foreign"), "was not made with the configured key"),
        (("verify", "one.tar.gz", "--key", "key"), "is not signed"),
        (("inspect", "signed.tar.gz", "--key", "foreign"), "was not made with the configured key"),
        (("sign", "one.tar.gz", "--key", "key"), "the signing key is no private key in PEM"),
        (("sign", "none.tar.gz", "--key", "key", "--alg", "HS256"), "there is no such file"),
        (("sign", "one.tar.gz", "--key", "none"), "signing key none: cannot be read"),
    ):
        code, out, error = command.run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert problem in error
        assert error.count("\n") == 1


DIFFERENCES: dict[str, tuple[Mapping[str, bytes], list[str]]] = {
    "nothing but the revision": (data_bundle({"a": {"b": 1}}, "d2"), []),
    "a value": (data_bundle({"a": {"b": 2}}), ["data changed: a/b"]),
    "another kind of number": (data_bundle({"a": {"b": True}}), ["data changed: a/b"]),
    "keys": (data_bundle({"a": {"c": 1}}), ["data removed: a/b", "data added: a/c"]),
    "roots": (data_bundle({"a": {"b": 1}, "z": {}}), ["roots: a become a, z", "data added: z"]),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_differs_in_data_is_a_line_each(command: Command, case: str) -> None:
    files, lines = DIFFERENCES[case]
    write(command.folder / "past.tar.gz", data_bundle({"a": {"b": 1}}))
    write(command.folder / "now.tar.gz", files)
    code, out, error = command.run("diff", "past.tar.gz", "now.tar.gz")
    assert (out.splitlines(), error) == (lines, "")
    assert code == (1 if lines else 0)


def test_what_differs_in_entrypoints_is_told(command: Command, make_bundle: MakeBundle) -> None:
    files = make_bundle(1, wasm=[{"entrypoint": "p/marks", "module": "/policy.wasm"}], metadata={})
    write(command.folder / "less.tar.gz", files)
    code, out, _ = command.run("diff", "one.tar.gz", "less.tar.gz")
    assert code == 1
    assert out.splitlines() == [
        "entrypoint p/marks reads other input: nothing becomes everything",
        "entrypoint p/marks reads other data: facts becomes everything",
        "entrypoint removed: p/shared",
    ]


def test_the_server_delivers_what_lies_in_its_folder_to_whoever_has_the_token(
    command: Command, sark_pdp: Path, tmp_path: Path
) -> None:
    (tmp_path / ".hidden").write_text("precious")
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "b.tar.gz", b"precious")
    address = f"127.0.0.1:{free_port()}"
    arguments = ["serve", ".", "--listen", address, "--token-file", "key"]
    with subprocess.Popen([sark_pdp, "bundle", *arguments], cwd=tmp_path, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().decode() == f"http://{address}/FILE serves the files of .\n"

        def get(path: str, **headers: str) -> tuple[int, bytes, str]:
            request = urllib.request.Request(f"http://{address}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own server
                    return answer.status, answer.read(), answer.headers["ETag"]
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read(), error.headers.get("ETag", "")

        token = {"Authorization": f"Bearer {SECRET}"}
        status, content, etag = get("/one.tar.gz", **token)
        assert (status, content) == (200, (tmp_path / "one.tar.gz").read_bytes())
        known = {**token, "If-None-Match": etag}
        assert get("/one.tar.gz", **known) == (304, b"", etag)
        assert get("/one.tar.gz", **known, Prefer="modes=snapshot,delta;wait=1") == (304, b"", etag)
        assert get("/one.tar.gz")[0] == get("/one.tar.gz", Authorization="Bearer none")[0] == 401
        for path in ("/", "/none", "/.hidden", "/below/b.tar.gz", "/../key", "/%2e%2e/key", "/below"):
            assert get(path, **token)[0] == 404
        server.send_signal(signal.SIGTERM)
        until(lambda: server.poll() is not None)
    assert server.returncode == 0


def test_what_cannot_be_served_is_said(command: Command) -> None:
    for arguments, problem in (
        (("serve", "none"), "none: there is no such folder"),
        (("serve", ".", "--listen", "here"), "--listen here: "),
        (("serve", ".", "--listen", "192.0.2.1:1"), "cannot listen on 192.0.2.1:1"),
        (("serve", ".", "--token-file", "none"), "--token-file none: cannot be read"),
    ):
        code, _, error = command.run(*arguments)
        assert code == 2
        assert problem in error
