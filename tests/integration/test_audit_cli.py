"""`sark-pdp audit` over real spools."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sark_pdp.audit.source import Source
from sark_pdp.audit.spool import Spool
from sark_pdp.audit.spool_file import DATABASE
from sark_pdp.cli import main
from sark_pdp.model import AuditRecord, LifecycleRecord, Outcome
from tests.fix_audit import NOON, ManualClock, a_record, new_id, write_source

HOUR = 3_600_000_000_000
HOSTILE = "\x1b]0;owned\x07\x9b31m\u202eevil\nnext"


def a_document(user: str, tool: str, server: str = "s-1") -> dict[str, Any]:
    return {
        "user": {"id": user, "email": f"{user}@example.com"},
        "action": "tool:invoke",
        "tool": {"name": tool},
        "server": {"id": server},
    }


RECORDS = [
    a_record(a_document("alice", "search"), time_ns=NOON),
    a_record(a_document("bob", "shell"), outcome=Outcome.DENY, time_ns=NOON + HOUR),
    a_record(a_document("alice", "shell", "s-2"), outcome=Outcome.ERROR, time_ns=NOON + 2 * HOUR),
]


def write(directory: Path, records: Sequence[AuditRecord]) -> None:
    spool = Spool(directory, 2**30)
    source = Source("pod", spool.next_number, None, ManualClock())
    spool.append(source.segment([source.started(spool.previous)]))
    for record in records:
        spool.append(source.segment([source.seal(record)]))
    spool.append(source.segment([source.stopped()]))
    spool.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    write(tmp_path, RECORDS)
    return tmp_path


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], env=env)


def listed(*arguments: object) -> list[dict[str, Any]]:
    result = run("list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_list_tells_why_something_was_refused(tmp_path: Path) -> None:
    """However long the reason is; of other details only what is short has room."""
    reason = "bundle /etc/sark-pdp/bundle.tar.gz: is not signed by the key that is configured for it"
    details = {"bundle": "default", "reason": reason, "digest": 64 * "a"}
    write(tmp_path, [RECORDS[0], LifecycleRecord(new_id(), NOON, "policy_refused", "medium", details)])
    shown = run("list", "--spool", tmp_path, env={"COLUMNS": "400"}).stdout
    assert f"bundle default, reason {reason}" in shown
    assert 64 * "a" not in shown


def test_list_shows_the_newest_first(spool: Path) -> None:
    assert [event["id"] for event in listed("--spool", spool)[1:-1]] == [record.id for record in reversed(RECORDS)]
    lines = run("list", "--spool", spool).stdout.splitlines()
    assert "source_stopped" in lines[1]
    for cells, line in zip(
        [["error", "alice"], ["deny", "bob", "shell"], ["allow", "search"]], lines[2:], strict=False
    ):
        assert all(cell in line for cell in cells), line
    assert "because" in lines[2]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--user", "alice"], [2, 0]),
        (["--user", "bob@example.com"], [1]),
        (["--tool", "shell"], [2, 1]),
        (["--server", "s-2"], [2]),
        (["--decision", "deny"], [1]),
        (["--type", "authorization_denied"], [2, 1]),
        (["--type", "authorization_denied", "--limit", "1"], [2]),
        (["--user", "alice", "--until", "2026-01-01T12:30:00Z"], [0]),
        (["--user", "alice", "--since", "2026-01-01T15:00:00+01:00"], [2]),
        (["--user", "alice", "--since", "2026-01-01T14:00:00"], [2]),
        (["--user", "nobody"], []),
        (["--source", "pod/nobody"], []),
    ],
)
def test_list_filters(spool: Path, filters: list[str], found: list[int]) -> None:
    ids = [event["id"] for event in listed("--spool", spool, *filters)]
    assert ids == [RECORDS[index].id for index in found]


def test_list_takes_times_relative_to_now(tmp_path: Path) -> None:
    minutes_ago = [5, 60, 180]
    records = [a_record(time_ns=time.time_ns() - minutes * 60 * 10**9) for minutes in minutes_ago]
    write(tmp_path, records)
    events = listed("--spool", tmp_path, "--since", "2h", "--until", "15m", "--type", "authorization_allowed")
    assert [event["id"] for event in events] == [records[1].id]


def test_list_shows_fifty_and_all_on_demand(tmp_path: Path) -> None:
    write_source(tmp_path, [100])
    assert len(listed("--spool", tmp_path)) == 50
    assert len(listed("--spool", tmp_path, "--limit", 0)) == 102


@pytest.mark.parametrize("point", ["yesterday", "2026-13-01", "5", "-5m"])
def test_a_time_that_is_none_is_refused(spool: Path, point: str) -> None:
    result = run("list", "--spool", spool, f"--since={point}")
    assert result.exit_code == 2
    assert point in result.output
    assert "RFC 3339" in result.output


@pytest.mark.parametrize("command", [["list"], ["tail"], ["list", "--json"], ["tail", "--json"], ["stats"]])
def test_what_callers_wrote_is_harmless_on_a_terminal(tmp_path: Path, command: list[str]) -> None:
    write(tmp_path, [a_record(a_document(HOSTILE, HOSTILE, HOSTILE))])
    output = run(*command, "--spool", tmp_path).stdout
    assert "evil" in output
    assert all(character == "\n" or character.isprintable() for character in output)


def test_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, [a_record(a_document("[red]x[/]", "[/nothing]"))])
    for command in ("list", "tail", "stats"):
        assert "[/nothing]" in run(command, "--spool", tmp_path).stdout


@pytest.mark.parametrize("command", ["list", "tail", "stats", "verify"])
def test_an_empty_spool_says_so(tmp_path: Path, command: str) -> None:
    Spool(tmp_path, 2**30).close()
    result = run(command, "--spool", tmp_path)
    assert result.exit_code == 0
    assert result.stdout == f"There are no events in {tmp_path} yet.\n"


@pytest.mark.parametrize("command", ["list", "tail", "stats", "verify", "export"])
def test_a_folder_without_a_spool_is_an_error_in_one_line(tmp_path: Path, command: str) -> None:
    result = run(command, "--spool", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "nowhere") in result.stderr


@pytest.fixture
def closed(spool: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A spool of which nobody but the system's administrator may read the folder, or the file."""
    place = spool / request.param
    place.chmod(0)
    yield spool
    place.chmod(0o700)


@pytest.mark.parametrize("closed", ["", DATABASE], indirect=True)
@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_spool_that_may_not_be_read_is_no_difference(closed: Path, command: str, sark_pdp: Path) -> None:
    """What could not be checked is an error, in one line: 1 would say that somebody changed it."""
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*as_others, sark_pdp, "audit", command, "--spool", closed], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "cannot be read" in line


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["verify"]])
def test_output_that_cannot_be_written_is_no_difference(spool: Path, command: list[str], sark_pdp: Path) -> None:
    asked = [str(sark_pdp), "audit", *command, "--spool", str(spool)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "sark-pdp: standard output: No space left on device\n")
    # Whoever reads has enough: that is nothing to tell.
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "wb") as gone:
        done = subprocess.run(asked, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_spool_of_the_settings_is_the_default(spool: Path) -> None:
    result = run("list", "--json", env={"SARK_PDP_AUDIT__SPOOL_DIR": str(spool)})
    assert len(result.stdout.splitlines()) == 5
    assert run("list", "--json", "--set", f"audit.spool_dir={spool}").stdout == result.stdout


def test_tail_shows_the_last_events_oldest_first(spool: Path) -> None:
    lines = run("tail", "--spool", spool, "--type", "authorization_denied", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [RECORDS[1].id, RECORDS[2].id]
    assert "bob" in run("tail", "--spool", spool).stdout


def test_tail_follows_what_is_committed_until_it_is_interrupted(tmp_path: Path) -> None:
    first, second = (a_record(outcome=Outcome.DENY) for _ in range(2))
    write(tmp_path, [a_record(), first])
    # Where these tests run in the background, an interruption is ignored, and children would inherit that.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program += "; from sark_pdp.cli import main; main()"
    command: list[str | Path] = [sys.executable, "-c", program, "audit", "tail", "-f", "--json", "--spool", tmp_path]
    with subprocess.Popen(
        [*command, "--decision", "deny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["id"] == first.id
        write(tmp_path, [a_record(), second])
        assert json.loads(tail.stdout.readline())["id"] == second.id
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=60)
    assert tail.returncode == 0
    assert errors == ""


def test_tail_follows_the_spool_that_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    first, second = (a_record(outcome=Outcome.DENY) for _ in range(2))
    spool = tmp_path / "spool"
    write(spool, [first])
    program = "from sark_pdp.cli import main; main()"
    command: list[str | Path] = [sys.executable, "-c", program, "audit", "tail", "-f", "--json", "--spool", spool]
    with subprocess.Popen(
        [*command, "--decision", "deny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["id"] == first.id
        write(tmp_path / "new", [second])
        (spool / DATABASE).rename(spool / f"{DATABASE}.damaged")
        (tmp_path / "new" / DATABASE).rename(spool / DATABASE)
        assert json.loads(tail.stdout.readline())["id"] == second.id
        tail.kill()
        _, errors = tail.communicate(timeout=60)
    assert "another spool" in errors


def test_export_is_for_other_programs_and_not_for_a_terminal(spool: Path) -> None:
    lines = run("export", "--spool", spool, "--type", "authorization_denied").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [RECORDS[2].id, RECORDS[1].id]
    rows = run("export", "--spool", spool, "--format", "csv", "--limit", 2).stdout.splitlines()
    assert rows[0].startswith('"id","timestamp","source"')
    assert len(rows) == 3
    assert any("--output" in line for line in in_terminal(80, "export", "--spool", spool, code=2))


def test_stats_count(spool: Path) -> None:
    counts = json.loads(run("stats", "--spool", spool, "--json").stdout)
    assert counts["events"] == 5
    assert counts["decisions"] == {"allow": 1, "deny": 1, "error": 1}
    assert counts["tools"] == {"search": 1, "shell": 2}
    assert counts["types"] == {
        "source_started": 1,
        "authorization_allowed": 1,
        "authorization_denied": 2,
        "source_stopped": 1,
    }
    shown = run("stats", "--spool", spool).stdout
    assert "5 events from 2026-01-01T12:00:00.123456Z to 2026-01-01T14:00:00.123456Z" in shown
    assert "events/s" in shown
    assert json.loads(run("stats", "--spool", spool, "--json", "--user", "bob").stdout)["events"] == 1


def test_verify_says_what_it_proved(spool: Path) -> None:
    result = run("verify", "--spool", spool)
    assert result.exit_code == 0
    assert "5 events: no gap, no duplicate, no change found." in result.stdout
    assert "proven: stopped in order" in result.stdout
    assert "Keyless chain" in result.stdout


def test_verify_exits_0_where_only_the_end_is_unproven(tmp_path: Path) -> None:
    write_source(tmp_path, [3], stopped=False)
    result = run("verify", "--spool", tmp_path)
    assert result.exit_code == 0
    assert "is unproven" in result.stdout
    report = json.loads(run("verify", "--spool", tmp_path, "--json").stdout)
    assert (report["differences"], report["sources"][0]["end"]) == (0, "unproven")


def test_verify_exits_1_with_differences(tmp_path: Path) -> None:
    write_source(tmp_path, [3, 3], b"k" * 32)
    key = tmp_path / "wrong.key"
    key.write_bytes(b"w" * 32)
    for form in ([], ["--json"]):
        assert run("verify", "--spool", tmp_path, "--key-file", key, *form).exit_code == 1
    assert "event 1 was changed" in run("verify", "--spool", tmp_path, "--key-file", key).stdout


def test_verify_exits_2_where_the_key_is_missing(tmp_path: Path) -> None:
    write_source(tmp_path, [3], b"k" * 32)
    result = run("verify", "--spool", tmp_path)
    assert result.exit_code == 2
    assert "--key-file" in result.stdout


def test_verify_takes_the_key_from_the_settings_with_the_spool(tmp_path: Path) -> None:
    write_source(tmp_path, [3], b"k" * 32)
    key = tmp_path / "chain.key"
    key.write_bytes(b"k" * 32)
    result = run("verify", "--set", f"audit.spool_dir={tmp_path}", "--set", f"audit.chain_key_file={key}")
    assert result.exit_code == 0, result.output
    assert "nobody without the key" in result.stdout


def test_every_command_has_help_with_examples() -> None:
    for command in ("list", "tail", "stats", "verify", "export"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert f"sark-pdp audit {command}" in result.stdout


def in_terminal(columns: int, *arguments: object, code: int = 0) -> list[str]:
    """What a person sees on a terminal of this width, without colours."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    program = [sys.executable, "-c", "from sark_pdp.cli import main; main()", "audit", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(program, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        # Where nobody writes to a terminal any more, Linux fails the reading.
        with suppress(OSError):
            while read := os.read(ours, 4096):
                shown += read
    os.close(ours)
    assert process.returncode == code
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def test_events_fit_into_a_narrow_terminal(spool: Path) -> None:
    """What does not fit is left out, rather than each word broken."""
    lines = in_terminal(80, "list", "--spool", spool)
    assert lines[0].split() == ["Time", "(UTC)", "Event", "User", "Tool", "Reason"]
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) == 1 + len(RECORDS) + len(("source_started", "source_stopped"))


def test_a_verification_fits_into_a_narrow_terminal(spool: Path) -> None:
    lines = in_terminal(80, "verify", "--spool", spool)
    assert lines[0].split() == ["Source", "Events", "Chain", "End", "Dropped", "Differences"]
    assert lines[1].startswith("pod/")
    assert lines[1].split()[1:3] == ["5", "keyless"]
