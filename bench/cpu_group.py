"""A control group whose processes may use so much of a core and no more, as a container with a limit. Linux only.

<https://docs.kernel.org/scheduler/sched-bwc.html>: what has used its share of a period waits for the next one.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

_PERIOD_US: Final = 100_000
"""The kernel's default, and Kubernetes'."""


class Throttled(Struct, frozen=True):
    """How often the processes of a group had used up their share, since it was made."""

    periods: int
    """In which there was anything to do."""
    throttled: int
    """Of these, how many ended with something that had to wait."""


class CpuGroup(Struct, frozen=True):
    """One that is there."""

    folder: Path

    @property
    def entering(self) -> tuple[str, ...]:
        """What to put before a command, so that it begins within the group."""
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"))

    def throttled(self) -> Throttled:
        """So far."""
        lines = (line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        found = {name: int(value) for name, value in lines}
        return Throttled(found["nr_periods"], found["nr_throttled"])


@contextmanager
def cpu_group(cores: float) -> Iterator[CpuGroup]:
    """A group that may use so many cores. Exits where this machine lets nobody make one."""
    quota = round(cores * _PERIOD_US)
    try:
        folder = Path(tempfile.mkdtemp(prefix="sark-bench-", dir=_mount()))
    except OSError as error:
        raise SystemExit(
            f"not measured: no control group can be made here ({error.strerror}); it takes root"
        ) from error
    try:
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        yield CpuGroup(folder)
    except FileNotFoundError as error:
        raise SystemExit(f"not measured: control groups have no limit of the CPU here ({error.filename})") from error
    finally:
        # Whoever was in it has ended.
        folder.rmdir()


def _mount() -> Path:
    """Where groups are made that limit the CPU: of version 1 where its controller is there, else of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, place, kind, options, *_ in mounts:
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place)
    for _, place, kind, *_ in mounts:
        if kind == "cgroup2":
            (Path(place) / "cgroup.subtree_control").write_text("+cpu")
            return Path(place)
    raise SystemExit("not measured: no control groups are mounted here")
