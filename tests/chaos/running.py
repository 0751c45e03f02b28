"""Runs two sidecars and two writers through faults for some minutes, and holds what is left to what is promised."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from tests.chaos.disk import enter_own_mounts
from tests.chaos.evidence import Phase, collect
from tests.chaos.faults import INFLICT
from tests.chaos.report import Screen, table
from tests.chaos.schedule import HURRIED, LOCAL, NEEDS_DISK, PAIR, UNHURRIED, Fault, phases
from tests.chaos.verdict import ANYWHERE, STRICT, Check, judge
from tests.chaos.world import RATE, World

_BITE: Final = 15.0
"""Seconds that a fault may take to have an effect."""
_BITE_OF_DISK: Final = 45.0
"""The same of a full disk: a spool first uses up the room that it has already."""
_CAUGHT_UP: Final = 30.0
"""Seconds that are waited for writers to have what was committed meanwhile."""
_SEEDS: Final = 1_000_000


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 where all was kept, 1 where not, 2 where the run could not be made."""
    options = _options(arguments)
    # Whoever started this may ignore SIGINT, and it would too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    no_disk = enter_own_mounts("tests.chaos", ["--seed", str(options.seed), *arguments])
    folder = Path(tempfile.mkdtemp(prefix="sark-chaos-", dir="/tmp"))
    # PostgreSQL runs as somebody else.
    folder.chmod(0o755)
    world = World(folder, Path(sys.executable).with_name("sark-pdp"), options.seed, disks=not no_disk)
    screen = Screen(options.seconds, options.seed)
    screen.say(f"seed {options.seed}, {options.seconds:.0f} s, {RATE:.0f} questions a second, in {folder}")
    if no_disk:
        screen.say(f"no disk is filled: {no_disk}")
    checks: list[Check] = []
    try:
        run = Run(world, screen, options)
        world.start()
        run.go(disk=not no_disk)
        checks = run.judged()
    except (TimeoutError, OSError, subprocess.SubprocessError) as error:
        screen.say(f"the run could not be made: {error}")
        return 2
    except KeyboardInterrupt:
        screen.say("interrupted")
        return 2
    finally:
        kept = bool(checks) and all(check.kept for check in checks)
        if not kept or options.keep:
            with contextlib.suppress(OSError):
                world.save_spools()
        world.stop()
        if kept and not options.keep:
            shutil.rmtree(folder)
        else:
            screen.say(f"kept in {folder}; to repeat it: make chaos ARGS='{_again(options)}'")
    print(table(checks))
    return int(not kept)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(_SEEDS), help="chance, if not said")
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults; what follows takes some more")
    parser.add_argument("--hurried", action="store_true", help="one fault after the other, with little calm between")
    parser.add_argument("--anywhere", action="store_true", help="tell times and promise none: for a busy machine")
    parser.add_argument("--keep", action="store_true", help="keep the folder whatever comes out")
    return parser.parse_args(arguments)


def _again(options: argparse.Namespace) -> str:
    """Arguments that make the same run."""
    flags = [f"--{name}" for name in ("hurried", "anywhere") if getattr(options, name)]
    return " ".join([f"--seed {options.seed} --seconds {options.seconds:g}", *flags])


class Run:
    """One run of a world that has been started."""

    def __init__(self, world: World, screen: Screen, options: argparse.Namespace) -> None:
        self._world = world
        self._screen = screen
        self._options = options
        self._phases: list[Phase] = []
        self._timeline: list[dict[str, Any]] = []
        self._unbitten: list[str] = []
        self._ending = threading.Event()
        self._began = 0.0

    def go(self, *, disk: bool) -> None:
        """Faults, phase by phase, until the time is over; then all is healed and shipped."""
        pace = HURRIED if self._options.hurried else UNHURRIED
        self._began = time.monotonic()
        self._screen.begin(lambda: self._world.backlog)
        coming = phases(self._options.seed, pace, disk=disk)
        while time.monotonic() < self._began + self._options.seconds:
            with self._phase("calm"):
                time.sleep(pace.calm)
            faults = next(coming)
            with self._phase("local" if any(fault.kind in LOCAL for fault in faults) else "central"):
                self._inflict(faults)
                self._catch_up()
            self._world.require_alive()
        self._screen.end()
        self._world.stop_asking()
        self._screen.say("all is healed; what is left is shipped")
        self._world.drain()
        for number in range(PAIR):
            self._world.count_duplicates(number)

    def judged(self) -> list[Check]:
        """What was promised, and whether it was kept."""
        strictness = ANYWHERE if self._options.anywhere else STRICT
        found = judge(collect(self._world, self._phases), strictness)
        dsn, key = self._world.database.dsn(), self._world.key_file
        found.append(_verified("`audit verify --dsn` walks every source", ["--dsn", dsn], key))
        for number, spool in enumerate(self._world.spools):
            found.append(_verified(f"`audit verify` of the spool of sidecar {number}", ["--spool", str(spool)], key))
        again = self._world.duplicates
        # A short run on a busy machine may have nothing to send again, which proves nothing and breaks nothing.
        proven = again > 0 or self._options.anywhere
        found.append(Check("what was sent twice is stored once", f"{again:,} events were sent again", kept=proven))
        troubles = [*self._world.troubles, *self._unforeseen()]
        found.append(
            Check(
                "no process ended by itself or logged what nobody foresaw",
                "; ".join(troubles[:5]) or "all of them were looked at",
                kept=not troubles,
            )
        )
        (self._world.folder / "timeline.json").write_text(json.dumps(self._timeline, indent=1))
        if self._unbitten:
            self._screen.say(f"without effect: {', '.join(self._unbitten)}")
        return found

    @contextlib.contextmanager
    def _phase(self, label: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._phases.append(Phase(label, start, time.monotonic()))

    def _inflict(self, faults: Sequence[Fault]) -> None:
        began = time.monotonic()
        threads = [threading.Thread(target=self._one, args=(fault, began + fault.start)) for fault in faults]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            # What they did is undone, and nothing is started after everything was ended.
            self._ending.set()
            for thread in threads:
                thread.join()
            raise

    def _one(self, fault: Fault, start: float) -> None:
        self._ending.wait(max(start - time.monotonic(), 0.0))
        at = time.monotonic() - self._began
        entry: dict[str, Any] = {"fault": str(fault), "at": round(at, 3)}
        self._timeline.append(entry)
        self._screen.fault(str(fault), at)
        try:
            with INFLICT[fault.kind](self._world, fault.number) as bites:
                deadline = time.monotonic() + (_BITE_OF_DISK if fault.kind in NEEDS_DISK else _BITE)
                while not (bitten := bites()) and time.monotonic() < deadline and not self._ending.wait(0.02):
                    pass
                if not bitten:
                    self._unbitten.append(str(fault))
                self._ending.wait(fault.seconds)
        except BaseException as error:  # noqa: BLE001 (pytest's own are no Exception)
            self._world.note(f"{fault}: {type(error).__name__}: {error}")
        entry["until"] = round(time.monotonic() - self._began, 3)

    def _catch_up(self) -> None:
        deadline = time.monotonic() + _CAUGHT_UP
        while self._world.backlog > RATE and time.monotonic() < deadline:
            time.sleep(0.05)

    def _unforeseen(self) -> list[str]:
        found = []
        logs = {f"sidecar {number}": sidecar.log for number, sidecar in enumerate(self._world.sidecars)}
        logs |= {f"writer {number}": writer.log for number, writer in enumerate(self._world.writers)}
        for name, log in logs.items():
            found += [f"{name}: {line}" for line in log.splitlines() if "Traceback" in line or "exc_info" in line]
        return found


def _verified(promise: str, arguments: Sequence[str], key_file: Path) -> Check:
    """What `sark-pdp audit verify` says."""
    command = [Path(sys.executable).with_name("sark-pdp"), "audit", "verify", "--json", f"--key-file={key_file}"]
    done = subprocess.run([*map(str, command), *arguments], capture_output=True, text=True, check=False, env=os.environ)
    if not done.stdout:
        return Check(promise, f"exit code {done.returncode}: {done.stderr.strip()}", kept=False)
    report = json.loads(done.stdout)
    ends = {source["end"] for source in report["sources"]}
    findings = [f"{source['source']}: {text}" for source in report["sources"] for text in source["findings"]]
    kept = done.returncode == 0 and not findings and ends <= {"stopped", "succeeded", "shipped"}
    found = f"{report['events']:,} events of {len(report['sources'])} sources, ends: {', '.join(sorted(ends))}"
    return Check(promise, "; ".join([found, *findings[:5]]), kept)
