"""Exports of events: exact as JSON Lines, harmless as CSV, whole or not at all."""

import csv
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sark_pdp.audit.event import Payloads, event_of
from sark_pdp.audit.search import Found
from sark_pdp.cli.audit_export import export, format_of
from sark_pdp.errors import AuditError
from tests.fix_audit import a_record

FORMULAS = tuple("=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}")


def found(**columns: Any) -> Found:
    payload = Payloads("pod/boot").payload(a_record({"user": {"id": "alice"}, "x": "ü\x9b\u202e\n"}), 1)
    return Found(replace(event_of(payload), **columns), payload)


def rows(path: Path, *events: Found) -> list[dict[str, str]]:
    export(events, "csv", path, "")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("alice", "alice"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1+1", "' =1+1"),
        ("\t=1+1", "' =1+1"),
        ("\r\n=1+1", "'  =1+1"),
        ('"=1+1', "'\"=1+1"),
        ("x;=1+1", "x;'=1+1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("a-b@c.d", "a-b@c.d"),
        ("\x1b]0;owned\x07", "\N{REPLACEMENT CHARACTER}]0;owned\N{REPLACEMENT CHARACTER}"),
        ("a\nb", "a b"),
        (None, ""),
    ],
)
def test_a_cell_is_text_and_nothing_else(tmp_path: Path, text: str | None, cell: str) -> None:
    (row,) = rows(tmp_path / "trail.csv", found(user_id=text, details={"reason": text, "latency_ns": -5}))
    assert (row["user_id"], row["reason"], row["latency_ns"]) == (cell, cell, "-5")


@given(st.lists(st.text() | st.from_regex(r"[\s;\"',]*[=+@-].*"), min_size=1, max_size=4))
def test_no_program_that_reads_cells_finds_a_formula(texts: list[str]) -> None:
    """Whether it takes a comma or a semicolon for what parts them."""
    events = [found(user_id=text, tool_name=text, details={"reason": text, "input": {text: text}}) for text in texts]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trail.csv"
        assert export(events, "csv", path, "") == len(texts)
        lines = path.read_text("utf-8").split("\n")
    assert len(lines) == len(texts) + 2
    for delimiter in ",;":
        for row in csv.reader(lines[1:], delimiter=delimiter):
            for cell in row:
                assert cell.removeprefix("-").isdigit() or not cell.lstrip(' "').startswith(FORMULAS)
    assert all(line.isprintable() for line in lines)


def test_json_lines_are_the_stored_bytes(tmp_path: Path) -> None:
    one = found()
    assert export([one, one], "jsonl", tmp_path / "trail", "") == 2
    assert (tmp_path / "trail").read_bytes() == (one.payload + b"\n") * 2


def test_the_name_of_a_file_tells_its_form() -> None:
    for name, given_, form in (
        ("a.csv", None, "csv"),
        ("a.CSV", None, "csv"),
        ("a.jsonl", None, "jsonl"),
        ("a", None, "jsonl"),
        ("a.csv", "jsonl", "jsonl"),
    ):
        assert format_of(Path(name), given_) == form
    assert format_of(None, None) == "jsonl"


def failing() -> Iterator[Found]:
    yield found()
    raise AuditError("the writer is gone")


def test_a_file_is_there_when_all_is_written(tmp_path: Path) -> None:
    """What was there before stays until then, and a link still leads to it."""
    file, link = tmp_path / "trail.jsonl", tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(AuditError, match="gone"):
        export(failing(), "jsonl", file, "")
    assert [each.name for each in tmp_path.iterdir()] == ["link"]
    file.write_text("before")
    with pytest.raises(AuditError, match="gone"):
        export(failing(), "jsonl", link, "")
    assert file.read_text() == "before"
    assert export([found()], "jsonl", link, "") == 1
    assert link.is_symlink()
    assert file.read_bytes().count(b"\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "trail.jsonl"]


@pytest.mark.parametrize("place", ["nowhere/trail.csv", "/dev/full"])
def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path, place: str) -> None:
    with pytest.raises(AuditError, match=f"{place}: cannot be written: "):
        export([found()] * 10_000, "jsonl", tmp_path / place, "")
