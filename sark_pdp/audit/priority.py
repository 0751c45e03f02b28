"""Lets answers and the audit thread go first on a core that they and the shipper both want.

Not for the audit thread itself: at full load it would fall behind the answers, and drop what it is there to keep.
"""

import os
import sys
import threading
from typing import Final

_NICE: Final = 10
"""Added to that of the process."""


def give_way() -> None:
    """Lowers the priority of the thread that calls it."""
    # Elsewhere this would be of the whole process.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + _NICE)
