"""Lets answers go first on a core that they and the audit trail both want."""

import os
import sys
import threading
from typing import Final

_NICE: Final = 10
"""Of a thread of the audit trail, added to that of the process."""


def give_way() -> None:
    """Lowers the priority of the thread that calls it."""
    # Elsewhere this would be of the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + _NICE)
