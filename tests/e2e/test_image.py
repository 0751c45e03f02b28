"""The image, without a container engine: the steps of the Dockerfile in clean folders, and what comes of them, started.

The steps are read from the Dockerfile, with other folders put in. What it starts from (images of Debian) and the
packages that it installs there are not tried.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fix_serve import free_port

ROOT = Path(__file__).parents[2]
USER = 65532
PATIENCE = 60.0
DEVELOPER = '{"action": "tool:invoke", "user": {"id": "bob", "roles": ["developer"]}, "tool": {"name": "search_code"}}'

pytestmark = pytest.mark.timeout(900)


class Instruction(NamedTuple):
    """One of the Dockerfile."""

    name: str
    rest: str


def stages() -> list[list[Instruction]]:
    """Each begins with FROM; what comes before is none."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction = Instruction(*line.split(maxsplit=1))
        if instruction.name == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def the(stage: list[Instruction], name: str) -> str:
    """What the only instruction of this name says."""
    (rest,) = (each.rest for each in stage if each.name == name)
    return rest


def test_nothing_is_done_but_by_the_script() -> None:
    """So what is tried below is what the Dockerfile does."""
    commands = [each.rest for stage in stages() for each in stage if each.name == "RUN"]
    others = [command for command in commands if not command.startswith("charts/image.sh ")]

    assert [command.split()[0] for command in others] == ["apt-get", "install"]
    assert len(commands) == 5


def test_it_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    *_, last = stages()

    assert the(last, "USER") == f"{USER}:{USER}"
    assert json.loads(the(last, "ENTRYPOINT")) == ["sark-pdp"]
    assert json.loads(the(last, "CMD")) == ["serve"]
    assert "SARK_PDP_" not in the(last, "ENV"), "a process refuses settings that are another's"
    assert {"title", "licenses", "version", "revision"} <= set(re.findall(r"image\.(\w+)=", the(last, "LABEL")))
    (declared,) = re.findall(r"ARG VERSION=(\S+)", (ROOT / "Dockerfile").read_text())
    assert declared == version("sark-pdp")
    chart = (ROOT / "charts" / "sark-pdp" / "Chart.yaml").read_text()
    assert f"\nappVersion: {declared}\n" in chart


class Image:
    """A folder for each of the image's, and the environment that its processes find."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.state = folder / "opt" / "sark-pdp", folder / "state"
        self._wheels = folder / "wheels"
        self._folder = folder
        wheel, environment, last = stages()
        source = self._context()
        self._perform(wheel, source)
        later = folder / "later"
        for each in environment:
            if each.name == "COPY" and not each.rest.startswith("--from"):
                *files, to = each.rest.split()
                (later / to).mkdir(parents=True, exist_ok=True)
                for file in files:
                    shutil.copy2(source / file, later / to)
        self._perform(environment, later)
        self.state.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(self.state, USER, USER)
        self.environment = dict(pair.split("=", 1) for pair in self._here(the(last, "ENV")).split())
        self.health = json.loads(the(last, "HEALTHCHECK").partition("CMD ")[2])

    def _context(self) -> Path:
        """What .dockerignore lets through, of what git knows or would."""
        to = self._folder / "source"
        to.mkdir()
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        wanted = [line.removeprefix("!") for line in lines if line.startswith("!")]
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, listed.decode().split("\0")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
        return to

    def _perform(self, stage: list[Instruction], folder: Path) -> None:
        # The front's dependencies are compiled once for all trees.
        target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "front" / "target"))
        for each in stage:
            if each.name == "RUN" and each.rest.startswith("charts/"):
                command = [sys.executable if part == "python3" else part for part in shlex.split(self._here(each.rest))]
                done = subprocess.run(
                    command,
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=800,
                    env={**os.environ, "CARGO_TARGET_DIR": target},
                )
                assert done.returncode == 0, f"{each.rest}: {done.stderr}"

    def _here(self, text: str) -> str:
        """With the folders of this test."""
        text = text.replace("/opt/sark-pdp", str(self.programs)).replace("/wheels", str(self._wheels))
        return text.replace("XDG_STATE_HOME=/var/lib", f"XDG_STATE_HOME={self.state}")

    def command(self, *arguments: str) -> list[str]:
        """As the user of the image, and, where that can be had, with nothing to write to but the state folder."""
        program = [str(self.programs / "bin" / arguments[0]), *arguments[1:]]
        if os.getuid() != 0:
            return program
        drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all"]
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            return [*drop, *program]
        mounts = f'mount --bind {self.state} {self.state} && mount -o remount,ro,bind / && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mounts, "sh", *drop, *program]

    def run(self, *arguments: str, metrics: str = "", grpc: str = "") -> subprocess.CompletedProcess[str]:
        """A command in it, which finds the settings in its environment."""
        settings = {"SARK_PDP_LISTEN__METRICS": metrics, "SARK_PDP_LISTEN__GRPC": grpc}
        environment = self.environment | {name: value for name, value in settings.items() if value}
        return subprocess.run(
            self.command(*arguments), env=environment, cwd="/", capture_output=True, text=True, timeout=PATIENCE
        )


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if shutil.which("cargo") is None:
        pytest.skip("no cargo: the image is not tried")
    # Another user must be able to go there.
    with tempfile.TemporaryDirectory(prefix="sark-image-") as name:
        Path(name).chmod(0o755)
        yield Image(Path(name))


@contextlib.contextmanager
def serving(image: Image, log: Path) -> Iterator[tuple[str, str]]:
    """Its listen.grpc and listen.metrics."""
    grpc, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"SARK_PDP_LISTEN__GRPC": grpc, "SARK_PDP_LISTEN__METRICS": metrics, "SARK_PDP_LISTEN__HTTP": ""}
    settings |= {"SARK_PDP_TRANSPORT": "front", "SARK_PDP_LIMITS__EVAL_TIMEOUT": "10s"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            image.command("sark-pdp", "serve"),
            env=image.environment | settings,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while (healthy := image.run(*image.health, metrics=metrics)).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, healthy.stderr + log.read_text()
        yield grpc, metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_it_serves_as_a_user_without_rights_from_a_root_that_cannot_be_written(image: Image, tmp_path: Path) -> None:
    """Over the front; the health check finds it; nothing is compiled, and the state folder alone is written to."""
    assert image.run(*image.health, metrics=f"127.0.0.1:{free_port()}").returncode == 1
    with serving(image, tmp_path / "log") as (grpc, _):
        checked = image.run("sark-pdp", "check", "--set", f"address={grpc}", "--input", DEVELOPER)
        assert checked.returncode == 0, checked.stderr
    state = image.state / "sark-pdp"
    assert any((state / "audit").iterdir())
    assert not list(state.glob("compiled/*")), "the policies were shipped"
    assert state.stat().st_uid == (USER if os.getuid() == 0 else os.getuid())


def test_every_process_is_in_it(image: Image) -> None:
    for command in ("audit-writer", "publisher", "injector", "certificates", "bundle", "db"):
        assert image.run("sark-pdp", command, "--help").returncode == 0
    # Settings of `serve` in the image would stop the others.
    refused = image.run("sark-pdp", "publisher")
    assert "attributes.postgres_dsn: is not set" in refused.stderr


def test_what_bundles_and_settings_may_ask_for_is_in_it(image: Image) -> None:
    """The extras of a sidecar: nobody can install them later."""
    modules = "re2, opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http"
    assert image.run("python", "-c", f"import {modules}").returncode == 0


def test_what_runs_is_what_was_locked_and_the_bill_lists_it(image: Image) -> None:
    """Nothing that builds or installs is left."""
    bill = json.loads((image.programs / "share" / "sark-pdp.cdx.json").read_text())
    listed = {each["purl"] for each in bill["components"]}
    locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    python = {f"pkg:pypi/{name}@{number}" for name, number in locked}

    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/sark-pdp@{version('sark-pdp')}"
    assert {purl for purl in listed if purl.startswith("pkg:pypi/")} <= python
    assert {"pkg:pypi/grpcio@" + version("grpcio"), "pkg:pypi/wasmtime@" + version("wasmtime")} <= listed
    assert not [purl for purl in listed if re.match(r"pkg:pypi/(pip|setuptools|setuptools-rust|wheel)@", purl)]
    assert any(purl.startswith("pkg:cargo/tokio@") for purl in listed)
    assert not (image.programs / "bin" / "pip").exists()


def test_python_is_compiled(image: Image) -> None:
    (package,) = image.programs.glob("lib/python*/site-packages/sark_pdp")
    assert len(list((package / "cli" / "__pycache__").glob("*.pyc"))) == len(list((package / "cli").glob("*.py")))
