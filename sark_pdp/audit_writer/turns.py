"""Who is next among what many streams bring: each in turn, and what one stream brings in its own order."""

import heapq
from typing import Final, Generic, Protocol, TypeVar


class Stream(Protocol):
    """Of whom the pieces are."""

    turn: int
    """Of the piece that it brought last; the queue's own."""


class Piece(Protocol):
    """What waits."""

    @property
    def stream(self) -> Stream:
        """Who brought it."""


P = TypeVar("P", bound=Piece)


class Turns(Generic[P]):
    """A queue for one event loop. A stream that brings much has its second piece after the first of each other one."""

    def __init__(self) -> None:
        self._waiting: Final[list[tuple[int, int, P]]] = []
        self._turn = 0
        """Of the piece that was taken last."""
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> P:
        """The piece that is next."""
        return self._waiting[0][2]

    def add(self, piece: P) -> None:
        """Behind all of its own stream."""
        stream = piece.stream
        stream.turn = max(stream.turn, self._turn) + 1
        self._number += 1
        heapq.heappush(self._waiting, (stream.turn, self._number, piece))

    def take(self) -> P:
        """The next piece; there is one."""
        self._turn, _, piece = heapq.heappop(self._waiting)
        return piece
