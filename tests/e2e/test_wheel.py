"""The wheel: one for every Python from 3.11 on, which serves over the front where there is no Rust toolchain.

It takes minutes to build, so only `make wheel-check` runs this, and names the file in `SARK_WHEEL`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_serve import Sidecar

ROOT = Path(__file__).parents[2]
WHEEL = os.environ.get("SARK_WHEEL", "")

pytestmark = [
    pytest.mark.skipif(not WHEEL, reason="make wheel-check builds the wheel first"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment with the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
    ]
    locked: list[str | Path] = [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--requirement",
        ROOT / "requirements.lock",
    ]
    for arguments in (locked, ["--no-index", WHEEL]):
        subprocess.run([*pip, *arguments], check=True, env=without_cargo(os.environ), cwd=folder)
    return folder / "bin"


def without_cargo(environment: "os._Environ[str]") -> dict[str, str]:
    path = [part for part in environment["PATH"].split(":") if not (Path(part) / "cargo").exists()]
    return {**environment, "PATH": ":".join(path)}


@pytest.fixture
def served(installed: Path, short_dir: Path) -> Iterator[Sidecar]:
    sidecar = Sidecar(
        installed / "sark-pdp", short_dir, {"transport": "front", "listen.grpc": f"unix://{short_dir / 's'}"}
    )
    sidecar.start()
    sidecar.wait_ready()
    yield sidecar
    assert sidecar.stop() == 0


def test_its_tag_is_of_the_stable_abi() -> None:
    assert re.search(r"-cp311-abi3-linux_\w+\.whl$", WHEEL)


def test_what_it_installs_answers_over_the_front(installed: Path, served: Sidecar) -> None:
    question = '{"action": "tool:list", "user": {"id": "dev-1", "roles": ["developer"]}}'
    command: list[str | Path] = [
        installed / "sark-pdp",
        "check",
        "--set",
        f"address={served.grpc}",
        "--input",
        question,
    ]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=served.folder)
    assert asked.returncode == 0, asked.stderr
    _, metrics = served.get("/metrics")
    assert 'sark_front_calls_begun_total{listener="grpc"} 1.0' in metrics
