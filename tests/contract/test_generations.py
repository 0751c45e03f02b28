"""What all generations promise, those of one process and those that processes share."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import pytest

from sark_pdp.cache import subjects
from sark_pdp.cache.generations import GENERATION_BYTES, LocalGenerations
from sark_pdp.interfaces import Generations
from sark_pdp.projection import Projection
from tests.fix_generations import DECISION, LISTING, Process, Question, StartProcess, a_question, asked

New: TypeAlias = Callable[[], Generations]

QUESTIONS = [a_question(user, tool) for user in ("ada", "bob") for tool in ("query", "delete")]
LISTINGS = [a_question(user, "", LISTING) for user in ("ada", "bob")]
NONE: frozenset[int] = frozenset()
REACHED: list[tuple[Any, Any]] = [
    ((subjects.ALL,), frozenset(range(6))),
    ((subjects.policy(DECISION.name),), frozenset(range(4))),
    ((subjects.policy("other"),), NONE),
    ((subjects.user("ada"),), frozenset({0, 1, 4})),
    ((subjects.user("eve"),), NONE),
    ((subjects.tool("id of query"),), frozenset({0, 2})),
    (subjects.of_named_tool("s1", "delete"), frozenset({1, 3})),
    ((subjects.server("s1"),), frozenset(range(4))),
    (subjects.of_data_root(("roles",)), frozenset(range(4))),
    (subjects.of_data_root(("roles", "dev")), frozenset(range(4))),
    (subjects.of_data_root(("catalog", "levels", "high")), frozenset({4, 5})),
    (subjects.of_data_root(("catalog",)), frozenset(range(6))),
    (subjects.of_data_root(("catalog", "other")), NONE),
    (subjects.of_data_root(()), frozenset(range(6))),
    ((subjects.user("ada"), subjects.tool("id of delete")), frozenset({0, 1, 3, 4})),
    ((), NONE),
]
"""What is invalidated, and which of the questions have another generation then: the first of these are of DECISION."""


@pytest.fixture(params=["local", "redis"])
def generations(request: pytest.FixtureRequest) -> Generations:
    if request.param == "local":
        return LocalGenerations()
    start: StartProcess = request.getfixturevalue("start_process")
    process: Process = start(request.getfixturevalue("redis_server").url)
    process.wait_linked()
    process.wait_trusted(*QUESTIONS, *LISTINGS)
    return process.generations


def test_a_question_has_the_same_generation_until_something_is_invalidated(generations: Generations) -> None:
    first = asked(generations, *QUESTIONS)
    assert {len(each) for each in first} == {GENERATION_BYTES}
    for _ in range(3):
        assert asked(generations, *QUESTIONS) == first
        assert [generations.known(*question) for question in QUESTIONS] == first


def test_an_invalidation_reaches_what_it_is_about_and_nothing_else(generations: Generations) -> None:
    before = asked(generations, *QUESTIONS, *LISTINGS)
    seen = set(before)
    for invalidated, reached in REACHED:
        generations.invalidate(invalidated)
        after = asked(generations, *QUESTIONS, *LISTINGS)
        changed = {index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}
        assert changed == reached, invalidated
        # None comes back that ever was.
        assert not seen & {after[index] for index in changed}
        seen |= set(after)
        before = after


def test_the_generation_of_a_subject_is_its_own(generations: Generations) -> None:
    names = [subjects.ALL, subjects.user("ada"), subjects.server("s1")]
    before = generations.of(names)
    assert generations.of(names) == before
    assert generations.known_of(names) in (None, before)
    generations.invalidate([names[1]])
    after = generations.of(names)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_whatever_stands_for_a_user_the_question_has_a_generation(generations: Generations) -> None:
    # A lone surrogate is nothing that a key can be made of, but a document may hold one.
    odd: list[tuple[Any, bool]] = [
        *((value, True) for value in ("é\x00\n", "\ud800", "a" * 1000, 1)),
        *((value, False) for value in (["ada"], {"a": 1}, 1 << 70, True, 1.5, None)),
    ]
    for number, (value, is_id) in enumerate(odd):
        question = (DECISION, {"user": {"id": value}}, bytes([number]) * 32)
        (first,) = asked(generations, question)
        assert asked(generations, question) == [first]
        generations.invalidate([subjects.user(str(value))])
        assert (asked(generations, question) != [first]) is is_id, value


def test_an_entrypoint_that_reads_other_data_from_now_on_counts_that(generations: Generations) -> None:
    """As after the activation of another bundle."""
    generations.invalidate(subjects.of_data_root(("roles",)))
    one, other = a_question(entrypoint=DECISION), a_question(entrypoint=_of_another_revision())
    before = asked(generations, one, other)
    generations.invalidate(subjects.of_data_root(("roles",)))
    after = asked(generations, one, other)
    assert [then == now for then, now in zip(before, after, strict=True)] == [False, True]


def _of_another_revision() -> Any:
    return type(DECISION)(Projection([()]), DECISION.name, fingerprint=b"o" * 32, reads_data=(("levels",),))


def test_threads_that_ask_while_others_invalidate_never_see_a_former_generation(generations: Generations) -> None:
    """Whoever asks after an invalidation has returned gets what is made after it began."""

    def run(user: str) -> int:
        question: Question = a_question(user)
        seen: set[bytes] = set()
        for _ in range(100):
            (generation,) = asked(generations, question)
            assert generation not in seen
            seen.add(generation)
            generations.invalidate([subjects.user(user)])
        return len(seen)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, map(str, range(6)))) == [100] * 6


def test_many_invalidations_take_bounded_room_and_bring_nothing_back() -> None:
    generations = LocalGenerations(capacity=100)
    seen: set[bytes] = set()
    for _ in range(5):
        generations.invalidate([subjects.user("ada")])
        assert not seen & {*asked(generations)}
        for number in range(250):
            generations.invalidate([subjects.user(str(number))])
            seen.update(asked(generations))
            assert len(generations._replaced) <= 100
    # Room for others is made no more than three times in each turn, and an answer is kept until then.
    assert len(seen) <= 5 * (3 + 1)
