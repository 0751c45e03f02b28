"""The limit that `bench.limited` puts a sidecar under is one."""

import subprocess
import sys

import pytest

from bench.cpu_group import cpu_group

_BUSY = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
"""Computes for 0.2 s, however long that takes."""


def test_who_is_in_a_group_waits_when_its_share_is_used_up() -> None:
    try:
        with cpu_group(0.1) as group:
            subprocess.run([*group.entering, sys.executable, "-c", _BUSY], check=True, timeout=60)
            counted = group.throttled()
    except SystemExit as refused:
        pytest.skip(str(refused))
    # In each period of 100 ms 10 ms can be computed: it takes some 20, in each of which it has to wait.
    assert counted.periods >= counted.throttled >= 10
    assert not group.folder.exists()
