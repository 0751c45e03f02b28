"""Subjects: which answers an invalidation reaches."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.cache import subjects
from sark_pdp.projection import Path, Projection
from tests.fix_audit import FakeEntrypoint

PATHS = st.lists(st.sampled_from("abc"), max_size=4).map(tuple)
TEXT = st.text(max_size=12)


def reads(*paths: Path) -> set[str]:
    """What an entrypoint that reads these paths of data counts."""
    return set(subjects.of_entrypoint(FakeEntrypoint(Projection([()]), reads_data=paths)))


@given(st.lists(PATHS, max_size=3), PATHS)
def test_a_data_root_reaches_who_reads_it_or_below_or_around_it_and_nobody_else(read: list[Path], root: Path) -> None:
    overlaps = any(path[: len(root)] == root or root[: len(path)] == path for path in read)
    assert bool(reads(*read) & set(subjects.of_data_root(root))) is overlaps


@given(PATHS)
def test_no_data_root_reaches_who_reads_no_data(root: Path) -> None:
    assert not reads() & set(subjects.of_data_root(root))


def test_every_answer_counts_everything_and_its_entrypoint() -> None:
    assert reads() == {"all", "policy:sark/mcp/decision"}


@pytest.mark.parametrize(
    ("projected", "counted"),
    [
        ({}, []),
        ({"user": {"roles": ["dev"]}, "action": "tool:invoke"}, []),
        ({"user": {"id": "ada"}}, ["user:ada"]),
        ({"user": "ada"}, ["user:ada"]),
        ({"user": {"id": 17}}, ["user:17"]),
        ({"server": {"id": "s"}}, ["server:s"]),
        ({"server": "s"}, ["server:s"]),
        ({"tool": {"id": "t"}}, ["tool:t"]),
        ({"tool": "query"}, ["named::query"]),
        ({"tool": {"name": "query"}}, ["named::query"]),
        ({"tool_name": "query"}, ["named::query"]),
        ({"tool": {"name": "query"}, "tool_name": "other"}, ["named::query"]),
        ({"tool": {"name": "query"}, "server": {"id": "s1"}}, ["server:s1", "named:2:s1query"]),
        (
            {"user": {"id": "u"}, "tool": {"id": "t", "name": "n"}, "server": {"id": "s"}},
            ["user:u", "server:s", "tool:t", "named:1:sn"],
        ),
        # What is no id is none.
        ({"user": {"id": ""}, "server": {"id": None}, "tool": {"id": {"a": 1}, "name": [1]}, "tool_name": True}, []),
        ({"user": ["ada"], "server": {"id": 1.5}, "tool": {"id": 1 << 70}}, []),
    ],
)
def test_an_answer_counts_the_ids_that_its_input_holds(projected: Any, counted: list[str]) -> None:
    assert list(subjects.of_ids(projected)) == counted


@given(TEXT, TEXT, TEXT, TEXT)
def test_two_tools_are_never_one_subject(server: str, name: str, other_server: str, other_name: str) -> None:
    same = (server, name) == (other_server, other_name)
    assert (subjects.named(server, name) == subjects.named(other_server, other_name)) is same
    assert subjects.named(server, name) != subjects.named(None, other_name)


def test_the_tool_of_a_server_is_reached_where_the_server_is_not_told() -> None:
    reached = set(subjects.of_named_tool("s1", "query"))
    for projected in ({"tool": {"name": "query"}, "server": {"id": "s1"}}, {"tool_name": "query"}):
        assert reached & set(subjects.of_ids(projected))
    for projected in ({"tool": {"name": "query"}, "server": {"id": "s2"}}, {"tool_name": "other"}):
        assert not reached & set(subjects.of_ids(projected))


@given(st.text(min_size=300, max_size=400), st.text(min_size=300, max_size=400))
def test_a_long_id_takes_little_room_and_is_told_apart(one: str, other: str) -> None:
    assert len(subjects.user(one)) < 100
    assert (subjects.user(one) == subjects.user(other)) is (one == other)
