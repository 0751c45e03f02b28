"""The lock files pin, with hashes, what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN: list[str] = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
DEV: list[str] = RUN + PROJECT["dependency-groups"]["dev"]


def pins(file: str) -> dict[str, str]:
    """Version by canonical name; every entry must have a hash."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / file).read_text()):
        if not entry.startswith("#"):
            requirement = Requirement(entry.split(" \\\n")[0])
            assert "--hash=sha256:" in entry, f"{requirement.name} has no hash in {file}"
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize(("file", "wanted"), [("requirements.lock", RUN), ("requirements-dev.lock", DEV)])
def test_lock_satisfies_the_project(file: str, wanted: list[str]) -> None:
    pinned = pins(file)
    unmet = [text for text in wanted if not _met(Requirement(text), pinned)]
    assert not unmet, f"{file} is behind pyproject.toml: run `make lock`"


def test_checks_run_against_the_versions_that_run() -> None:
    pinned = pins("requirements-dev.lock")
    assert {name: pinned.get(name) for name in pins("requirements.lock")} == pins("requirements.lock")


def test_locks_name_no_index() -> None:
    for file in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"https?:|--(extra-)?index-url|--find-links|@ ", (ROOT / file).read_text()), file


def _met(requirement: Requirement, pinned: dict[str, str]) -> bool:
    version = pinned.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version)
