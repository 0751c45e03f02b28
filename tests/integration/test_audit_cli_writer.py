"""`sark-pdp audit` asking an audit writer: a real process on a real PostgreSQL."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from sark_pdp._proto.audit_pb2 import Event
from sark_pdp.audit.reader import SpoolReader
from sark_pdp.audit.source import Source
from sark_pdp.audit.spool import Spool
from sark_pdp.audit_writer.maintenance import maintain
from sark_pdp.audit_writer.sessions import MAINTAINING, session_of
from sark_pdp.cli import main
from sark_pdp.model import AuditRecord, Outcome
from sark_pdp.postgres.connections import connect
from tests.fix_audit import ManualClock, a_record, write_source
from tests.fix_serve import free_port
from tests.fix_store import KEEPING
from tests.fix_writer_process import AuditWriter, StartWriter
from tests.fix_writer_streams import Connect, Stream, event, wait_for, writer_tls

MINUTE = 60_000_000_000
HOSTILE = "\x1b]0;owned\x07\x9b31m\u202eevil\nnext"


def a_document(user: str, tool: str, server: str = "s-1") -> dict[str, Any]:
    return {"user": {"id": user}, "action": "tool:invoke", "tool": {"name": tool}, "server": {"id": server}}


def write(directory: Path, records: Sequence[AuditRecord]) -> None:
    """A spool of these decisions alone."""
    spool = Spool(directory, 2**30)
    source = Source("pod", spool.next_number, None, ManualClock())
    for record in records:
        spool.append(source.segment([source.seal(record)]))
    spool.close()


def ship(directory: Path, stream: Stream) -> list[bytes]:
    """Sends all events of a spool to a writer, and returns their payloads."""
    with SpoolReader(directory) as reader:
        snapshot = reader.snapshot()
        names = {source.number: source.name for source in snapshot.sources}
        sent = []
        for segment in reader.forward(0, snapshot.position):
            events = segment.events()
            assert events is not None
            for sequence, sealed in enumerate(events, segment.first):
                stream.send(
                    Event(sequence=sequence, chain=sealed.chain, payload=sealed.payload), source=names[segment.source]
                )
                sent.append(sealed.payload)
    stream.wait_acknowledged(sequence)
    return sent


def stamp(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 10**9, UTC).isoformat()


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], env=env)


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


@pytest.fixture
def writer(store: str, start_writer: StartWriter) -> AuditWriter:
    return start_writer(store)


@pytest.fixture
def stream(writer: AuditWriter, channel_to: Connect) -> Iterator[Stream]:
    opened = Stream(channel_to(writer))
    yield opened
    opened.finish()


def test_a_spool_and_a_writer_answer_alike(tmp_path: Path, writer: AuditWriter, stream: Stream) -> None:
    """The same filters find the same events, in a list, as the last ones, and in an export."""
    start = time.time_ns() - 100 * MINUTE
    kinds = [
        ("alice", "search", "s-1", Outcome.ALLOW),
        ("bob", "shell", "s-1", Outcome.DENY),
        ("alice", "shell", "s-2", Outcome.ERROR),
        ("eve", "search", "s-2", Outcome.UNDEFINED),
    ]
    records = [
        a_record(a_document(*kinds[number % 4][:3]), outcome=kinds[number % 4][3], time_ns=start + number * MINUTE)
        for number in range(90)
    ]
    spool = tmp_path / "spool"
    write(spool, records)
    ship(spool, stream)
    source = json.loads(run("list", "--spool", spool, "--limit", 1, "--json").stdout)["source"]
    for filters in (
        [],
        ["--user", "alice"],
        ["--tool", "shell", "--server", "s-1"],
        ["--decision", "undefined"],
        ["--type", "authorization_denied"],
        ["--since", stamp(start + 40 * MINUTE), "--until", stamp(start + 80 * MINUTE)],
        ["--since", "1d", "--until", "15s"],
        ["--source", source],
        ["--source", "pod/other"],
        ["--user", "nobody"],
    ):
        for command in (["list", "--json", "--limit", 0], ["tail", "--json"], ["export"]):
            here = ids(run(*command, "--spool", spool, *filters))
            assert ids(run(*command, "--writer", writer.address, *filters)) == here, (command, filters)
    assert len(ids(run("list", "--writer", writer.address, "--json"))) == 50
    assert run("list", "--writer", writer.address, "--user", "nobody").stdout == (
        f"There are no events that match in the audit writer on {writer.address} yet.\n"
    )
    shown = run("list", "--writer", writer.address, "--limit", 1).stdout
    assert "Source" in shown
    assert source in shown


def test_an_export_of_many_pages_is_the_stored_bytes_once_each(
    tmp_path: Path, writer: AuditWriter, stream: Stream
) -> None:
    write_source(tmp_path / "spool", [500, 500, 500, 700])
    sent = ship(tmp_path / "spool", stream)
    file = tmp_path / "trail.jsonl"
    result = run("export", "--writer", writer.address, "--output", file)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{len(sent):,} events written to {file}\n"
    assert sorted(file.read_bytes().split(b"\n")[:-1]) == sorted(sent)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(ids(run("export", "--writer", writer.address, "--limit", 1100))) == 1100


def test_what_programs_of_others_sent_is_shown_as_far_as_it_can_be_read(writer: AuditWriter, stream: Stream) -> None:
    stream.send(
        event(1, user_id=HOSTILE),
        event(2, user_id=7, details=[1], tool_name="[red]x[/]"),
        Event(sequence=3, payload=event(3, details={"a": "b"}).payload.replace(b",", b",\r\n ")),
    )
    stream.wait_acknowledged(3)
    shown = run("list", "--writer", writer.address).stdout
    assert "evil" in shown
    assert "[red]x[/]" in shown
    assert all(character == "\n" or character.isprintable() for character in shown)
    listed = [json.loads(line) for line in run("list", "--json", "--writer", writer.address).stdout.splitlines()]
    assert sorted((each["sequence"], each["user_id"]) for each in listed) == [(1, HOSTILE), (2, None), (3, "alice")]
    # One event is one line, whatever is between its tokens.
    exported = [json.loads(line) for line in run("export", "--writer", writer.address).stdout.splitlines()]
    assert sorted(each["sequence"] for each in exported) == [1, 2, 3]
    rows = list(csv.DictReader(run("export", "--format", "csv", "--writer", writer.address).stdout.splitlines()))
    assert [each["details"] for each in rows if each["sequence"] == "3"] == ['{"a":"b"}']


def test_stats_count_whole_hours(store: str, writer: AuditWriter, stream: Stream) -> None:
    stream.send(
        *(event(number, user_id="alice" if number % 3 else "bob") for number in range(1, 31)),
        event(31, event_type="source_stopped", user_id=None),
        event(32, timestamp=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3 * 86400))),
    )
    stream.wait_acknowledged(32)
    # What came late is counted by the next pass of a writer: here it comes now.
    with connect(session_of(store, MAINTAINING), "test") as connection:
        wait_for(lambda: maintain(connection, KEEPING))
    counts = json.loads(run("stats", "--writer", writer.address, "--json").stdout)
    assert counts["events"] == 31
    assert counts["types"] == {"authorization_allowed": 30, "source_stopped": 1}
    assert counts["users"] == {"alice": 20, "bob": 10}
    assert sum(counts["hours"].values()) == 31
    more = json.loads(run("stats", "--writer", writer.address, "--since", "100h", "--json").stdout)
    assert more["events"] == 32
    bob = json.loads(run("stats", "--writer", writer.address, "--user", "bob", "--json").stdout)
    assert bob["events"] == 10
    shown = run("stats", "--writer", writer.address, "--type", "authorization_allowed").stdout
    assert "30 events in the whole hours from" in shown
    assert "alice" in shown
    refused = run("stats", "--writer", writer.address, "--tool", "shell")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "--tool" in refused.stderr


class Tail:
    """`sark-pdp audit tail -f` as a process."""

    def __init__(self, *arguments: object) -> None:
        # Where these tests run in the background, an interruption is ignored, and children would inherit that.
        program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        program += "; from sark_pdp.cli import main; main()"
        command = [sys.executable, "-c", program, "audit", "tail", "-f", "--json", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def next(self) -> int:
        """The sequence number of the next event."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        sequence: int = json.loads(line)["sequence"]
        return sequence

    def told(self) -> str:
        """The next line on standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors


def test_tail_goes_on_with_what_was_stored_while_the_writer_was_away(
    store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    """Each event once, in order, the first ten of before; an interruption ends it quietly."""
    address = f"127.0.0.1:{free_port()}"
    first, other = start_writer(store, listen__grpc=address), start_writer(store)
    stream = Stream(channel_to(other))
    stream.send(*(event(number) for number in range(1, 16)), event(16, user_id="bob"))
    stream.wait_acknowledged(16)
    tail = Tail("--writer", address, "--user", "alice")
    # By time, which has seconds here, and then by id.
    assert [tail.next() for _ in range(10)] == list(range(6, 16))
    stream.send(event(17), event(18, user_id="bob"))
    assert tail.next() == 17
    assert first.stop() == 0
    assert "trying again" in tail.told()
    stream.send(event(19), event(20, user_id="bob"), event(21))
    stream.wait_acknowledged(21)
    start_writer(store, listen__grpc=address)
    assert [tail.next() for _ in range(2)] == [19, 21]
    assert "again" in tail.told()
    stream.send(event(22))
    assert tail.next() == 22
    assert tail.interrupt() == (0, "", "")


def test_tail_of_a_writer_that_was_never_there_ends(tmp_path: Path) -> None:
    result = run("tail", "-f", "--writer", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "does not answer" in result.stderr


def test_certificates_are_named_by_options_or_settings(
    store: str, start_writer: StartWriter, certificates: Path
) -> None:
    writer = start_writer(store, **writer_tls(certificates), query__allowed_sans='["client.test"]')
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    named = {key: str(certificates / name) for key, name in files.items()} | {"server_name": "server.test"}
    options = [text for key, value in named.items() for text in (f"--{key.replace('_', '-')}", value)]
    assert run("list", "--writer", writer.address, *options).exit_code == 0
    environment = {f"SARK_PDP_AUDIT__TLS__{key.upper()}": value for key, value in named.items()}
    environment["SARK_PDP_AUDIT__WRITER"] = writer.address
    for command in ("list", "tail", "stats", "export"):
        result = run(command, "--writer", env=environment)
        assert result.exit_code == 0, result.output
    # The next one of several is asked where one is away.
    several = [f"--set=audit.writer={json.dumps([f'127.0.0.1:{free_port()}', writer.address])}"]
    assert run("list", "--writer", *several, *options).exit_code == 0
    stranger = [*options[:2], *options[6:]]
    wrong = [text.replace("ca.pem", "other-ca.pem") for text in options]
    for refused in (stranger, wrong, []):
        result = run("list", "--writer", writer.address, *refused)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert f"{writer.address} does not answer" in result.stderr


def test_who_may_not_ask_is_told_so_in_one_line(store: str, start_writer: StartWriter, certificates: Path) -> None:
    writer = start_writer(store, **writer_tls(certificates), query__allowed_sans='["auditor.test"]')
    files = ["--ca-file", certificates / "ca.pem", "--cert-file", certificates / "client.pem"]
    files += ["--key-file", certificates / "client.key", "--server-name", "server.test"]
    for command in (["list"], ["tail"], ["tail", "-f"], ["stats"], ["export"]):
        result = run(*command, "--writer", writer.address, *files)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "does not let you ask" in result.stderr
        assert "query.allowed_sans" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--writer"], "audit.writer names no writer"),
        (["--writer", "nonsense"], "has no port"),
        (["--writer", "audit.example:9010"], "audit.tls.ca_file"),
        (["--writer", "127.0.0.1:1", "--spool", "/x"], "two places"),
        (["--ca-file", "/x"], "--writer"),
        (["--writer", "127.0.0.1:1", "--ca-file", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (["--writer", "127.0.0.1:1", "--ca-file", __file__], "must be certificates"),
        (["--writer", "127.0.0.1:1", "--since", "yesterday"], "RFC 3339"),
        (["--writer", "127.0.0.1:1", "--since", "1h", "--until", "2h"], "is not before"),
        (["--writer", "127.0.0.1:1", "--decision", "maybe"], "'maybe' is not one of"),
    ],
)
@pytest.mark.parametrize("command", ["list", "export"])
def test_what_cannot_be_asked_is_said_in_one_line(command: str, arguments: list[str], said: str) -> None:
    result = run(command, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_what_answers_may_be_no_audit_writer() -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for command in (["list"], ["tail", "-f"]):
        result = run(*command, "--writer", f"127.0.0.1:{port}")
        assert result.exit_code == 2
        assert result.stderr == f"sark-pdp: what answers on 127.0.0.1:{port} is no audit writer\n"
    server.stop(0).wait(30)


def test_an_interrupted_export_leaves_what_was_there(tmp_path: Path, store: str, start_writer: StartWriter) -> None:
    writer = start_writer(store)
    file = tmp_path / "out" / "trail.csv"
    file.parent.mkdir()
    file.write_text("what was there")
    writer.process.send_signal(signal.SIGSTOP)
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program += "; from sark_pdp.cli import main; main()"
    command = [sys.executable, "-c", program, "audit", "export", "--writer", writer.address, "-o", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        wait_for(lambda: len(list(file.parent.iterdir())) == 2)
        export.send_signal(signal.SIGINT)
        output, errors = export.communicate(timeout=60)
    writer.process.send_signal(signal.SIGCONT)
    assert (export.returncode, output, errors) == (130, "", "")
    assert [each.name for each in file.parent.iterdir()] == ["trail.csv"]
    assert file.read_text() == "what was there"


def test_an_export_waits_for_a_writer_that_comes_back(
    tmp_path: Path, store: str, start_writer: StartWriter, channel_to: Connect
) -> None:
    """And goes on with the page that it has not got."""
    address = f"127.0.0.1:{free_port()}"
    first, other = start_writer(store, listen__grpc=address), start_writer(store)
    stream = Stream(channel_to(other))
    stream.send(*(event(number, details={"text": "x" * 2000}) for number in range(1, 4001)))
    stream.wait_acknowledged(4000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", "from sark_pdp.cli import main; main()", "audit", "export"]
    with (
        subprocess.Popen([*command, "--writer", address, "-o", pipe], stderr=subprocess.PIPE, text=True) as export,
        pipe.open("rb") as read,
    ):
        # The pipe is full, so the export waits for its reader.
        lines = [read.readline()]
        assert first.stop() == 0
        start_writer(store, listen__grpc=address)
        lines += read.readlines()
        assert export.wait(60) == 0
    assert sorted(json.loads(line)["sequence"] for line in lines) == list(range(1, 4001))


def on_terminal(*arguments: object) -> str:
    """What is shown on standard error, where that is a terminal."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-c", "from sark_pdp.cli import main; main()", "audit", *map(str, arguments)]
    with subprocess.Popen(program, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(theirs)
        shown = b""
        # Where nobody writes to a terminal any more, Linux fails the reading.
        with suppress(OSError):
            while read := os.read(ours, 4096):
                shown += read
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_an_export_shows_on_a_terminal_how_far_it_is(tmp_path: Path) -> None:
    write_source(tmp_path / "spool", [1000])
    shown = on_terminal("export", "--spool", tmp_path / "spool", "-o", tmp_path / "trail.jsonl")
    assert "back to 20" in shown
    assert f"1,002 events written to {tmp_path / 'trail.jsonl'}" in shown.replace("\r", "")
    assert len((tmp_path / "trail.jsonl").read_bytes().splitlines()) == 1002
