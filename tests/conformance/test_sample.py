"""A fixed sample of OPA's own test cases, which are compiled here; `make conformance` runs all of them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pytest

from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds
from tests.conformance.compiling import Compiler
from tests.conformance.corpus import Case, CorpusError, module_folder, read_cases
from tests.conformance.skips import BUILTINS, EXCEPTIONS, EXPLAINED
from tests.conformance.verdicts import MEMORY, Judge, Outcome
from tests.fix_engine import StillClock

SHARE = 40
"""One case of each namespace, and one more for so many cases in it."""
PASSED_NOWHERE = frozenset({"graphql", "invalidkeyerror", "netlookupipaddr", "regoparsemodule"})
"""Namespaces of cases that are skipped, or fail as explained."""
LEFT_OUT = frozenset({"withkeyword/builtin-builtin: arity 0"})


@pytest.fixture(scope="module")
def judge(opa: Path) -> Iterator[Judge]:
    """Gives evaluations all the time that a busy machine needs."""
    with closing(Runtime(eval_timeout=Seconds(60.0), memory_limit=MEMORY, clock=StillClock())) as runtime:
        yield Judge(runtime, Compiler(runtime.engine, opa))


@pytest.fixture(scope="module")
def corpus() -> Sequence[Case]:
    """Fails where Go cannot say where the corpus is."""
    try:
        return read_cases()
    except CorpusError as error:
        pytest.fail(f"{error}; run `make tools`", pytrace=False)


def sample(cases: Sequence[Case]) -> list[Case]:
    """Those whose names have the lowest digests: the same ones until OPA's version is another."""
    chosen: list[Case] = []
    for namespace, found in groupby(cases, key=lambda case: case.namespace):
        alike = [case for case in found if case.note not in LEFT_OUT | {*EXCEPTIONS, *EXPLAINED}]
        if namespace not in PASSED_NOWHERE:
            alike.sort(key=lambda case: sha256(case.note.encode()).digest())
            chosen += alike[: 1 + len(alike) // SHARE]
    return chosen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cases_of_every_namespace_do_what_opa_does(judge: Judge, corpus: Sequence[Case]) -> None:
    chosen = sample(corpus)
    assert len(chosen) > 120
    verdicts = [judge.verdict(case) for case in chosen]
    assert [(verdict.name, verdict.reason) for verdict in verdicts if verdict.outcome is not Outcome.PASSED] == []


def test_what_is_not_evaluated_is_in_the_corpus_by_name(corpus: Sequence[Case]) -> None:
    notes = {case.note for case in corpus}
    assert {*EXCEPTIONS, *EXPLAINED} - notes == set()
    text = "".join(module for case in corpus for module in case.modules)
    assert [name for name in BUILTINS if name not in text] == []


def test_the_exceptions_are_those_of_opa(corpus: Sequence[Case]) -> None:
    file = module_folder() / "internal/wasm/sdk/test/e2e/exceptions.yaml"
    assert [note for note in EXCEPTIONS if f'"{note}": ' not in file.read_text()] == []
