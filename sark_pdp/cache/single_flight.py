"""Lets one caller evaluate while others who ask for the same key wait for its verdict."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from sark_pdp.errors import DeadlineExceededError
from sark_pdp.model import Deadline, Decision


class SingleFlight:
    """`_lock` guards `_flights`, which holds a future for each key that is being evaluated now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[bytes, Future[Decision]] = {}

    def run(self, key: bytes, deadline: Deadline, evaluate: Callable[[], Decision]) -> tuple[Decision, bool]:
        """The decision, and whether this caller evaluated it itself.

        A follower gets what the leader got, errors included; it waits until its own deadline, then raises
        DeadlineExceededError.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                own: Future[Decision] = Future()
                self._flights[key] = own
        if flight is not None:
            return self._follow(flight, deadline), False
        try:
            decision = evaluate()
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(decision)
            return decision, True
        finally:
            with self._lock:
                del self._flights[key]

    def has(self, key: bytes) -> bool:
        """Whether this key is being evaluated now."""
        return key in self._flights

    @staticmethod
    def _follow(flight: Future[Decision], deadline: Deadline) -> Decision:
        timeout = deadline - time.monotonic()
        try:
            return flight.result(timeout if timeout < threading.TIMEOUT_MAX else None)
        except TimeoutError as error:
            if flight.done():
                # At the last moment, or with a TimeoutError of its own.
                return flight.result()
            raise DeadlineExceededError("the deadline passed while the policy was evaluated") from error
