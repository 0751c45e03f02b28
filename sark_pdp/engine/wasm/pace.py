"""Which entrypoints are quick enough to be evaluated on a thread that many callers wait for."""

from typing import Final

from sark_pdp.model import Seconds

BUDGET: Final = Seconds(0.001)
"""What one evaluation may take there, in about."""
_FIRST: Final = 64
_FACTOR: Final = 4
_MOST: Final = 65_536


class Pace:
    """Of one entrypoint. Any thread changes it: a lost update only shifts when the entrypoint comes back.

    There are three cases:

    - it is quick, as all are at first: evaluations may be tried at once;
    - one of those was cut off or took too long, by the clock on the wall, which on a busy machine is anybody's fault:
      the next evaluation on a thread that may wait tells, by the time of the processor;
    - one of these took too long: the entrypoint comes back when 64 in a row did not, the next time 256, and so on up to
      65,536, so that a caller who knows how to slow it down delays others ever more rarely.
    """

    __slots__ = ("_left", "_wanted", "quick")

    def __init__(self) -> None:
        self.quick = True
        self._left = 0
        self._wanted = _FIRST

    def suspect(self) -> None:
        """An evaluation that nothing may wait for took longer than the budget."""
        # It may have begun before another one proved to be slow, which counts for more.
        if self.quick:
            self.quick = False
            self._left = 1

    def observe(self, took: float) -> None:
        """An evaluation took this long, in seconds of processor time, on a thread that may wait."""
        if took > BUDGET:
            self.quick = False
            self._left = self._wanted
            self._wanted = min(_FACTOR * self._wanted, _MOST)
        elif not self.quick:
            self._left -= 1
            if self._left <= 0:
                self.quick = True
