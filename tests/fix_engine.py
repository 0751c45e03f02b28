"""Small policies compiled with the real OPA, and what it takes to ask them without a server."""

import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from sark_pdp.engine.bundle import Bundle, Module, ModuleEntrypoint, read_bundle
from sark_pdp.engine.manifest import EVERYTHING
from sark_pdp.engine.policies import LoadedPolicies
from sark_pdp.engine.preparation import Prepared, combine
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.interfaces import Answered, Clock, PolicySet
from sark_pdp.model import Decision, Document, Entrypoint, Request, Seconds
from sark_pdp.projection import Path as JsonPath

MEBI = 1 << 20
TIMEOUT = Seconds(0.1)

GENERAL = """package t

import data.live

yes := input.user.id == "alice"

no := input.user.id == "nobody"

answer := {"allow": true, "reason": concat(" ", ["hello", input.name])}

nothing if input.user.id == "nobody"

conflict := 1 if input.left

conflict := 2 if input.right

# Looks at the fourth power of the number of elements, and keeps nothing.
loop if {
	some i in input.many
	some j in input.many
	some k in input.many
	some l in input.many
	i == "a"
	j == "a"
	k == "a"
	l == "b"
}

# Allocates in strides of the size of its input.
hoard := concat("", [row | some _ in input.many; some _ in input.many; some _ in input.many; row := upper(input.text)])

hoarded := count(hoard)

size := count(input.many)

whole := input

role := live.roles[input.role]

all_data := data.live

text := base64.decode(input.text)
"""
GENERAL_ENTRYPOINTS = (
    *("t/yes", "t/no", "t/answer", "t/nothing", "t/conflict", "t/loop", "t/hoard", "t/size", "t/whole", "t/role"),
    *("t/all_data", "t/text", "t/hoarded"),
)

Compile: TypeAlias = Callable[[str, Sequence[str]], bytes]


class StillClock:
    """The time that policies see: what the test says, and where it says nothing, the machine's."""

    def __init__(self, time_ns: int | None = None) -> None:
        self.time_ns = time_ns

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return time.time_ns() if self.time_ns is None else self.time_ns


@pytest.fixture(scope="session")
def compile_rego(opa: Path, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles one file of Rego for some entrypoints; remembers what it has compiled."""
    known: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def compile_(source: str, entrypoints: Sequence[str]) -> bytes:
        key = (source, tuple(entrypoints))
        if key not in known:
            folder = tmp_path_factory.mktemp("rego")
            (folder / "policy.rego").write_text(source)
            options = [f"--entrypoint={name}" for name in entrypoints]
            command: list[str | Path] = [opa, "build", "--target=wasm", *options, "--output=bundle.tar.gz"]
            run = subprocess.run([*command, "policy.rego"], cwd=folder, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            with tarfile.open(folder / "bundle.tar.gz") as archive:
                member = archive.extractfile("/policy.wasm")
                assert member is not None
                known[key] = member.read()
        return known[key]

    return compile_


@pytest.fixture(scope="session")
def general_wasm(compile_rego: Compile) -> bytes:
    """GENERAL, which needs no built-in of the host."""
    return compile_rego(GENERAL, GENERAL_ENTRYPOINTS)


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machine code of what was compiled before in this run."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def runtime(compiled_folder: Path) -> Iterator[Runtime]:
    """One of the test's own: short evaluations, 32 MiB."""
    with a_runtime(compiled_folder, TIMEOUT, 32 * MEBI) as made:
        yield made


@pytest.fixture
def patient_runtime(compiled_folder: Path) -> Iterator[Runtime]:
    """Gives evaluations all the time that a busy machine needs."""
    with a_runtime(compiled_folder, Seconds(60.0), 64 * MEBI) as made:
        yield made


@contextmanager
def a_runtime(
    compiled: Path | None, timeout: Seconds, memory_limit: int, clock: Clock | None = None
) -> Iterator[Runtime]:
    """Closed at the end."""
    made = Runtime(
        eval_timeout=timeout, memory_limit=memory_limit, clock=clock or StillClock(), compiled_folder=compiled
    )
    try:
        yield made
    finally:
        made.close()


def ask(policy: WasmPolicy, entrypoint: str, document: Any) -> Any:
    """What the entrypoint returns, decoded; None where it is undefined."""
    raw = policy.evaluate(policy.entrypoint(entrypoint), msgspec.json.encode(document))
    return None if raw is None else msgspec.json.decode(raw)


def a_bundle(
    wasm: bytes,
    reads: Mapping[str, tuple[Sequence[JsonPath], Sequence[JsonPath]]],
    data: Document | None = None,
    revision: str = "r1",
) -> Bundle:
    """A bundle of one module; `reads` are the paths of input and data by entrypoint."""
    entrypoints = tuple(
        ModuleEntrypoint(name, tuple(input_paths), tuple(data_paths))
        for name, (input_paths, data_paths) in reads.items()
    )
    module = Module("policy.wasm", wasm, sha256(wasm).hexdigest(), entrypoints)
    return Bundle(revision, "d" * 64, ("",), (module,), data or {}, len(wasm))


def prepared(path: Path) -> Prepared:
    """What an activation needs of one bundle."""
    return combine({"only": read_bundle(path)})


def reads_everything(*names: str) -> dict[str, tuple[Sequence[JsonPath], Sequence[JsonPath]]]:
    """What a bundle without `metadata.sark` says of its entrypoints."""
    return dict.fromkeys(names, (EVERYTHING, EVERYTHING))


def a_question(entrypoint: Entrypoint, document: Document, **fields: Any) -> Request:
    """A request with an id of no meaning."""
    return Request(entrypoint, document, "request-1", **fields)


def each(decide: Callable[[Request], Decision], requests: Sequence[Request]) -> list[Answered]:
    """`decide_many` of a decider that has nothing to gain from it."""
    answers: list[Answered] = []
    for request in requests:
        try:
            answers.append(decide(request))
        except Exception as error:  # noqa: BLE001  # as the protocol has it
            answers.append(error)
    return answers


class Loaded:
    """A policy source whose policies are always active."""

    def __init__(self, policies: LoadedPolicies) -> None:
        self._policies = policies

    def active(self) -> PolicySet:
        return self._policies

    def entrypoint(self, name: str) -> Entrypoint:
        return self._policies.entrypoint(name)
