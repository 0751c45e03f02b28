"""For every entrypoint of the default bundle: what it is said to read is all that can change its answer.

The engine's own answer to the whole input is compared with the answers that go through the projection and the cache.
"""

import copy
import json
import random
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sark_pdp.cache.key import key_of
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.engine.bundle import read_bundle
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import LoadedEntrypoint, LoadedPolicies, Policies
from sark_pdp.engine.result import verdict_of
from sark_pdp.errors import EvaluationError
from sark_pdp.interfaces import Decider
from sark_pdp.model import Document, Json, Seconds, Tier
from sark_pdp.projection import Path as JsonPath
from sark_pdp.settings import default_bundle
from tests.fix_engine import MEBI, StillClock, a_question, a_runtime, prepared

ROOT = Path(__file__).parent.parent.parent
BUNDLE = read_bundle(default_bundle())
READS = {stated.name: stated.reads_input for module in BUNDLE.modules for stated in module.entrypoints}
CASES = [
    case for file in sorted((ROOT / "tests/cases").glob("*.yaml")) for case in yaml.safe_load(file.read_text())["cases"]
]
TIMES = {
    "at noon": "2026-03-03T12:00:00Z",
    "shortly before the end": "2026-03-03T17:59:55Z",
    "at night": "2026-03-08T03:00:00Z",
}
NOISE = ("request_id", "trace", "headers", "email", "port", "time", "id", "name", "", "x")

Change: TypeAlias = tuple[JsonPath, Json]
"""A path and what is put there; GONE takes away what is there."""

GONE = object()


# The words of the policies -------------------------------------------------------------------------------------------


def paths_of(value: Json, path: JsonPath = ()) -> Iterator[JsonPath]:
    """Of all objects' fields below a value."""
    if type(value) is dict:
        for name, below in value.items():
            yield (*path, name)
            yield from paths_of(below, (*path, name))


def values_of(value: Json) -> Iterator[Json]:
    """The value and all below it."""
    yield value
    for below in value.values() if type(value) is dict else value if type(value) is list else ():
        yield from values_of(below)


def words_of(value: Json) -> Iterator[str]:
    """Names of fields, and strings."""
    for below in values_of(value):
        if type(below) is dict:
            yield from below
        elif type(below) is str:
            yield below


def unique(values: Any) -> list[Json]:
    """By what JSON calls them, in a fixed order."""
    return [
        msgspec.json.decode(text) for text in sorted({msgspec.json.encode(value, order="sorted") for value in values})
    ]


WORDS = sorted({*words_of(BUNDLE.data), *words_of([case["input"] for case in CASES])})
ODD: list[Json] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    "",
    [],
    {},
    [None],
    {"id": "bob"},
    "x" * 300,
    10**30,
    "\x00",
    ["admin"],
]
VALUES = unique([*WORDS, *ODD, *values_of([case["input"] for case in CASES])])


def put(document: Document, path: JsonPath, value: Json) -> None:
    """Makes objects of whatever is in its way."""
    for step in path[:-1]:
        below = document.get(step)
        if type(below) is not dict:
            below = document[step] = {}
        document = below
    if value is GONE:
        document.pop(path[-1], None)
    else:
        document[path[-1]] = value


def changed(document: Document, changes: list[Change]) -> Document:
    document = copy.deepcopy(document)
    for path, value in changes:
        put(document, path, copy.deepcopy(value) if value is not GONE else GONE)
    return document


def bases(name: str) -> list[Document]:
    return [{}, *(case["input"] for case in CASES if case["entrypoint"] == name)]


def inside(name: str) -> list[JsonPath]:
    """Paths where a change may matter: read, or stated by some case."""
    stated = {path for document in bases(name) for path in paths_of(document)}
    return sorted({*READS[name], *stated, *((path[0],) for path in READS[name])})


def outside(name: str) -> list[JsonPath]:
    """Paths that the entrypoint does not read, among them siblings of those that it does."""
    parents = {path[:-1] for path in READS[name]}
    candidates = {*inside(name), *((*parent, noise) for parent in parents for noise in NOISE), ("parameters", "amount")}
    return sorted(path for path in candidates if path and not any(_overlap(path, read) for read in READS[name]))


def _overlap(one: JsonPath, other: JsonPath) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def documents(name: str) -> st.SearchStrategy[Document]:
    values = st.sampled_from(VALUES) | st.lists(st.sampled_from(WORDS), max_size=3) | st.just(GONE)
    changes = st.lists(st.tuples(st.sampled_from(inside(name)), values), max_size=5)
    return st.builds(changed, st.sampled_from(bases(name)), changes)


def unread_changes(name: str) -> st.SearchStrategy[list[Change]]:
    values = st.sampled_from(VALUES) | st.just(GONE)
    return st.lists(st.tuples(st.sampled_from(outside(name)), values), min_size=1, max_size=4)


# The answers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock() -> StillClock:
    return StillClock(0)


@pytest.fixture(scope="module")
def policies(compiled_folder: Path, clock: StillClock) -> Iterator[LoadedPolicies]:
    with a_runtime(compiled_folder, Seconds(30.0), 64 * MEBI, clock) as runtime:
        made = Policies(runtime)
        made.activate(prepared(default_bundle()))
        yield made.active()


def nanoseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp()) * 1_000_000_000


def of_whole(entrypoint: LoadedEntrypoint, document: Document) -> Json:
    """What the module says when it is given the whole input."""
    try:
        return said(verdict_of(entrypoint.evaluate(msgspec.json.encode(document))))
    except EvaluationError as error:
        return str(error)


def of(decider: Decider, entrypoint: LoadedEntrypoint, document: Document) -> Json:
    try:
        return said(decider.decide(a_question(entrypoint, document)).verdict)
    except EvaluationError as error:
        return str(error)


def said(verdict: Any) -> Json:
    return verdict.outcome, verdict.reason, verdict.result


PROPERTY = settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", READS)
def test_what_is_not_read_changes_no_answer_and_the_cache_none_either(
    policies: LoadedPolicies, clock: StillClock, name: str, time: str
) -> None:
    clock.time_ns = nanoseconds(TIMES[time])
    entrypoint = policies.entrypoint(name)
    bare = Evaluator(lambda *_: None)
    # One for all examples: a key that two of them share by mistake would give one the other's answer.
    cached = CachedDecider(bare, MemoryStore(100_000), Seconds(1e6))

    @PROPERTY
    @given(documents(name), unread_changes(name))
    def holds(document: Document, unread: list[Change]) -> None:
        answer = of(bare, entrypoint, document)
        assert of_whole(entrypoint, document) == answer
        other = changed(document, unread)
        assert of_whole(entrypoint, other) == answer
        assert of(bare, entrypoint, other) == answer
        for asked in (document, other, document):
            assert of(cached, entrypoint, asked) == answer
        keys = [key_of(entrypoint.fingerprint, entrypoint.projection.project(asked)) for asked in (document, other)]
        assert keys[0] == keys[1]

    holds()
    assert cached.statistics().hits > 100


@pytest.mark.parametrize("name", READS)
def test_the_random_questions_reach_many_answers(policies: LoadedPolicies, clock: StillClock, name: str) -> None:
    """A property over questions that are all refused alike would show nothing."""
    clock.time_ns = nanoseconds(TIMES["at noon"])
    source = random.Random(1)
    entrypoint = policies.entrypoint(name)
    reasons = {str(of_whole(entrypoint, document)) for document in random_documents(name, source, 2000)}
    assert len(reasons) >= 15


@pytest.mark.parametrize("time", TIMES)
def test_opa_answers_random_questions_alike(
    policies: LoadedPolicies, clock: StillClock, opa: Path, tmp_path: Path, time: str
) -> None:
    clock.time_ns = nanoseconds(TIMES[time])
    source = random.Random(2)
    asked = {name: list(random_documents(name, source, 400)) for name in READS}
    parts = [
        f"{json.dumps(name)}: [[i, x] | some i, document in input[{json.dumps(name)}]; "
        f"x := data.{name.replace('/', '.')} with input as document with time.now_ns as {clock.time_ns}]"
        for name in READS
    ]
    (tmp_path / "oracle.rego").write_text(f"package oracle\n\nresults := {{{', '.join(parts)}}}\n")
    (tmp_path / "input.json").write_bytes(msgspec.json.encode(asked))
    options: list[str | Path] = ["--format=json", f"--bundle={ROOT / 'policies'}", "--data=oracle.rego"]
    run = subprocess.run(
        [opa, "eval", *options, "--input=input.json", "data.oracle.results"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads(run.stdout)["result"][0]["expressions"][0]["value"]
    bare = Evaluator(lambda *_: None)
    for name, questions in asked.items():
        answers = dict(results[name])
        for number, document in enumerate(questions):
            verdict = bare.decide(a_question(policies.entrypoint(name), document)).verdict
            assert comparable(verdict.result) == comparable(answers.get(number)), document


def random_documents(name: str, source: random.Random, count: int) -> Iterator[Document]:
    starts, places = bases(name), inside(name)
    for _ in range(count):
        changes = [
            (source.choice(places), source.choice(VALUES) if source.random() < 0.8 else GONE)
            for _ in range(source.randrange(4))
        ]
        yield changed(source.choice(starts), changes)


def comparable(result: Json) -> Json:
    """With a body decoded: the order of its keys means nothing."""
    if type(result) is dict and type(result.get("body")) is str:
        return {**result, "body": json.loads(result["body"])}
    return result


def test_what_may_be_reused_is_reused(policies: LoadedPolicies, clock: StillClock) -> None:
    """And a change of what is read is another question."""
    clock.time_ns = nanoseconds(TIMES["at noon"])
    cached = CachedDecider(Evaluator(lambda *_: None), MemoryStore(10), Seconds(60.0))
    entrypoint = policies.entrypoint("sark/mcp/decision")
    document = {"user": {"id": "bob", "role": "developer"}, "action": "tool:invoke", "tool": {"name": "search_code"}}
    tiers = [
        cached.decide(a_question(entrypoint, {**document, **other})).tier
        for other in ({}, {"parameters": {"q": 1}}, {"context": {"client_ip": "10.0.0.1"}}, {"tool": {"name": "echo"}})
    ]
    assert tiers == [Tier.EVALUATED, Tier.L1, Tier.L1, Tier.EVALUATED]
