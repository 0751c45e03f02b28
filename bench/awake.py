"""Keeps the cores of a virtual machine from being put to sleep between calls.

A core that has nothing to do is given back to the hypervisor, and on a busy host it may take 100 ms to get it again:
at a fixed rate the tail then tells of the host. What runs here has the scheduling class of what only runs where nothing
else would, and gives way at once; on a machine of one's own it changes little.
"""

import os
import subprocess
import sys
from types import TracebackType
from typing import Final

from bench.machine import LOAD_CORE, SERVER_CORE, cpu_seconds

_BUSY: Final = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = int(sys.argv[2])
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


class Awake:
    """Between its beginning and its end, or that of this process, the cores do not sleep."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Awake":
        for core in (SERVER_CORE, LOAD_CORE):
            command = [sys.executable, "-c", _BUSY, str(core), str(os.getpid())]
            self._processes[core] = subprocess.Popen(command)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._processes:
            _, process = self._processes.popitem()
            process.kill()
            process.wait()

    def seconds(self, core: int) -> float:
        """For which it kept a core awake so far: time that the core had to spare. 0 where nothing was begun."""
        process = self._processes.get(core)
        return 0.0 if process is None else cpu_seconds(process.pid)
