"""Runs a group: starts its servers, compares what they decide, and gives them turns."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from envoy.service.auth.v3 import external_auth_pb2 as envoy
from msgspec import Struct

from bench import ghz, h2load
from bench.awake import Awake
from bench.checks import answer_sizes, prove, require_agreement, unexpected
from bench.figures import GroupResult, Measured, Round
from bench.groups import Group
from bench.loads import Load, Target
from bench.machine import ROOT, cpu_seconds, read_cores, resident_mib
from bench.questions import CHECK, TIMED, numbered
from bench.servers import Server, Start
from sark_pdp._proto import decision_pb2 as native

_WARM_UP = 0.7
"""Seconds."""
_DIFFERENT = 1_000
"""Messages that ghz sends in turn."""


class Course(Struct, frozen=True):
    """How long to go on, and whom to tell."""

    rounds: int
    say: Callable[[str], None]
    save: Callable[[], None]
    """Called after each round of all."""
    awake: Awake
    """Begun, or not."""


def new_result(seconds: float) -> GroupResult:
    """Of a group that has not begun, with rounds of so many seconds."""
    return GroupResult(commit(), datetime.now(UTC).date().isoformat(), seconds, {})


def commit() -> str:
    """What is measured; with `-dirty` where files were changed, `unknown` where this is no git checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    # Results are written meanwhile.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)bench/results")
    return f"{head}-dirty" if head and changed else head or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run_group(group: Group, starts: Mapping[str, Start], folder: Path, result: GroupResult, course: Course) -> None:
    """Adds to `result` the rounds that it lacks; exits where a server fails."""
    for name in starts:
        result.servers.setdefault(name, Measured())
    first = result.rounds
    if first >= course.rounds:
        course.say(f"{group.name}: has its {first} rounds")
        return
    places = {name: folder / str(number) for number, name in enumerate(starts)}
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, start in starts.items():
            places[name].mkdir()
            servers[name] = stack.enter_context(start(places[name]))
        require_agreement(servers, native=group.native)
        sizes = {name: answer_sizes(server) for name, server in servers.items()}
        for server in servers.values():
            _send(group, folder, server.target, 0, _WARM_UP)
        course.say(f"{group.name}: {len(servers)} servers decide alike and are warm")
        for number in range(first, course.rounds):
            # Forwards and backwards in turns: what a machine does over a round favours nobody.
            for name in list(servers)[:: 1 if number % 2 == 0 else -1]:
                measured = _round(group, folder, servers[name], sizes[name], number, result.seconds, course.awake)
                del result.servers[name].rounds[number:]
                result.servers[name].rounds.append(measured)
                course.say(_line(number, name, measured))
            course.save()
        for server in servers.values():
            server.settle()
        answered = {name: server.counters().get("decisions", 0.0) for name, server in servers.items()}
    for name, place in places.items():
        if group.recorded and answered[name]:
            result.servers[name].proofs.append(prove(place / "state" / "audit", round(answered[name])))
    course.save()


def _round(
    group: Group, folder: Path, server: Server, sizes: Sequence[int], number: int, seconds: float, awake: Awake
) -> Round:
    server.settle()
    counted, cpu, cores = server.counters(), cpu_seconds(server.pid), read_cores(awake.seconds)
    load = _send(group, folder, server.target, number + 1, seconds * group.stretch)
    after, busy = read_cores(awake.seconds), cpu_seconds(server.pid) - cpu
    server.settle()
    cpu = cpu_seconds(server.pid) - cpu
    took = after.at - cores.at
    counters = {name: value - counted[name] for name, value in server.counters().items()}
    expected = [sizes[at] for at in _bodies(group, number + 1)]
    return Round(
        calls=load.calls,
        failed=load.failed + int(counters.pop("refused", 0.0)) + unexpected(load, expected),
        seconds=load.seconds,
        cpu_us=cpu / load.calls * 1e6,
        resident_mib=resident_mib(server.pid),
        server_idle=(after.server_idle - cores.server_idle) / took,
        load_idle=(after.load_idle - cores.load_idle) / took,
        server_busy=busy / took,
        stolen=(after.stolen - cores.stolen) / took,
        generator_busy=load.generator_cpu / took,
        latencies=load.latencies,
        counters=counters,
    )


def _line(number: int, name: str, measured: Round) -> str:
    latencies = "".join(
        f", p{key} {measured.latencies[key]:,.0f} µs" for key in ("50", "99", "99.9") if key in measured.latencies
    )
    bound = ", generator-bound" if measured.generator_bound else ""
    bound += ", disturbed" if measured.disturbed else ""
    speed = f"{measured.rps:>9,.0f} calls/s {measured.cpu_us:>7.1f} µs a call"
    return f"  {number + 1}  {name:<32} {speed}{latencies}{bound}"


def _bodies(group: Group, number: int) -> Sequence[int]:
    """Which of the timed questions a round sends."""
    return range(group.bodies) if group.bodies > 1 else [number % len(TIMED)]


def _send(group: Group, folder: Path, target: Target, number: int, seconds: float) -> Load:
    """Each round sends requests with numbers of their own."""
    api = target.api
    if group.generator == "h2load":
        first = number * len(TIMED)
        bodies = [api.body(numbered(TIMED[at], first + at)) for at in _bodies(group, number)]
        return h2load.send(folder, target, bodies, group.shape, seconds)
    first = number * _DIFFERENT
    messages = [api.write(numbered(TIMED[at % len(TIMED)], first + at)) for at in range(_DIFFERENT)]
    service = native.DESCRIPTOR if api is CHECK else envoy.DESCRIPTOR
    return ghz.send(folder, target, service, messages, group.shape, seconds)
