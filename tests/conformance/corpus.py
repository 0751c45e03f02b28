"""OPA's own test cases, read from its Go module where Go keeps it: they are never copied into this repository."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

ROOT: Final = Path(__file__).parents[2]
MODULE: Final = "github.com/open-policy-agent/opa"
"""The Go module that the cases are in."""

_CASES: Final = Path("v1/test/cases/testdata/v1")
_BOOLEANS: Final = re.compile("true|True|TRUE|false|False|FALSE")
_LAST_COMMA: Final = re.compile(r",\s*([\]}])")
_BOOLEAN_TAG: Final = "tag:yaml.org,2002:bool"
_UNSPECIFIED: Final = frozenset({"ignore_generated_vars"})
"""Fields that no evaluation of a module depends on."""


class CorpusError(Exception):
    """The corpus is not where it should be, or is not what it should be."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case; the fields are those of OPA's `v1/test/cases/cases.go`."""

    namespace: str
    """The folder that it is in."""
    note: str
    """Its name, unique within its file."""
    query: str
    modules: tuple[str, ...] = ()
    data: dict[str, Any] | None = None
    input: Any = None
    input_term: str | None = None
    want_result: list[dict[str, Any]] | None = None
    want_error_code: str | None = None
    want_error: str | None = None
    sort_bindings: bool = False
    strict_error: bool = False

    @property
    def input_text(self) -> bytes:
        """The input as the module reads it; empty where the case has none."""
        if self.input_term is not None:
            # Rego allows a comma behind the last element, the text of a value does not.
            return _LAST_COMMA.sub(r"\1", self.input_term).encode()
        return b"" if self.input is None else json.dumps(self.input).encode()


class _GoLoader(yaml.CSafeLoader):
    """Reads plain scalars as Go's YAML does, where they differ in the corpus: `on` is text."""


_GoLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN_TAG]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_GoLoader.add_implicit_resolver(_BOOLEAN_TAG, _BOOLEANS, list("tTfF"))


def read_cases() -> list[Case]:
    """All cases, by namespace and note. Raises CorpusError."""
    folder = module_folder() / _CASES
    cases = [case for file in sorted(folder.glob("*/*.yaml")) for case in _cases(file)]
    if not cases:
        raise CorpusError(f"there are no cases in {folder}")
    return sorted(cases, key=lambda case: (case.namespace, case.note))


def pinned_version() -> str:
    """OPA's version as the Makefile pins it, `v1.2.3`."""
    found = re.search(r"^OPA_VERSION := (v\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if found is None:
        raise CorpusError("the Makefile does not say OPA_VERSION")
    return found[1]


@cache
def module_folder() -> Path:
    """Where Go keeps OPA's module; Go downloads it where it is missing. Raises CorpusError."""
    wanted = f"{MODULE}@{pinned_version()}"
    # The place is known without Go where the module is there already.
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if go is None:
        raise CorpusError(f"the corpus is in {wanted}, and Go is needed to get it; see https://go.dev/doc/install")
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    run = subprocess.run([go, "mod", "download", "-json", wanted], capture_output=True, text=True, env=environment)
    if run.returncode != 0:
        raise CorpusError(f"go mod download {wanted} failed: {(run.stdout + run.stderr).strip()}")
    return Path(json.loads(run.stdout)["Dir"])


def _cases(file: Path) -> Iterator[Case]:
    with file.open("rb") as opened:
        # The loader is a safe one.
        content = yaml.load(opened, _GoLoader)  # noqa: S506
    for fields in content["cases"]:
        yield _case(file.parent.name, fields)


def _case(namespace: str, fields: Mapping[str, Any]) -> Case:
    known = {name: value for name, value in fields.items() if name not in _UNSPECIFIED and value is not None}
    return msgspec.convert({"namespace": namespace, **known}, Case)
