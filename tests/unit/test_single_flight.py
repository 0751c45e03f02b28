"""One evaluation for all who ask the same at the same time."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sark_pdp.cache.single_flight import SingleFlight
from sark_pdp.errors import DeadlineExceededError, EvaluationError, SarkError
from sark_pdp.model import NO_DEADLINE, Deadline, Decision, DecisionId, Outcome, Tier, Verdict

DECISION = Decision(DecisionId("1"), Verdict(Outcome.ALLOW, "because"), Tier.EVALUATED, {})
KEY = b"key"
LONG = 30.0

Landed = Future[tuple[Decision, bool]]


class Flight:
    """A flight whose leader waits for `land`."""

    def __init__(self) -> None:
        self.single = SingleFlight()
        self.evaluations = 0
        self._begun = threading.Event()
        self._landing = threading.Event()
        self._pool = ThreadPoolExecutor(16)
        self._error: BaseException | None = None
        self.leader = self._pool.submit(self.single.run, KEY, NO_DEADLINE, self._evaluate)
        assert self._begun.wait(LONG)

    def follow(self, deadline: Deadline = NO_DEADLINE) -> Landed:
        """Returns when it waits."""
        waiting = self._waiting()
        follower = self._pool.submit(self.single.run, KEY, deadline, self._evaluate)
        end = time.monotonic() + LONG
        while self._waiting() == waiting and not follower.done():
            assert time.monotonic() < end
            time.sleep(0.001)
        return follower

    def land(self, error: BaseException | None = None) -> None:
        self._error = error
        self._landing.set()
        self._pool.shutdown()

    def _waiting(self) -> int:
        return len(self.single._flights[KEY]._condition._waiters)  # type: ignore[attr-defined]

    def _evaluate(self) -> Decision:
        self.evaluations += 1
        self._begun.set()
        assert self._landing.wait(LONG)
        if self._error is not None:
            raise self._error
        return DECISION


def test_followers_get_what_the_leader_evaluated() -> None:
    flight = Flight()
    followers = [flight.follow() for _ in range(10)]
    flight.land()
    assert flight.leader.result() == (DECISION, True)
    assert [follower.result() for follower in followers] == [(DECISION, False)] * 10
    assert flight.evaluations == 1


@pytest.mark.parametrize("error", [EvaluationError("the policy aborted"), TimeoutError("its own"), KeyError("x")])
def test_followers_get_the_leaders_error(error: Exception) -> None:
    flight = Flight()
    followers = [flight.follow() for _ in range(3)]
    flight.land(error)
    for caller in (flight.leader, *followers):
        assert caller.exception() is error
    assert flight.evaluations == 1


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.05])
def test_a_follower_waits_until_its_own_deadline_and_no_longer(seconds: float) -> None:
    flight = Flight()
    patient = flight.follow()
    hasty = flight.follow(Deadline(time.monotonic() + seconds))
    with pytest.raises(DeadlineExceededError, match="the deadline passed while the policy was evaluated"):
        hasty.result(LONG)
    assert not patient.done()
    flight.land()
    assert patient.result() == (DECISION, False)


def test_a_follower_whose_deadline_is_far_gets_the_answer() -> None:
    flight = Flight()
    followers = [flight.follow(Deadline(time.monotonic() + seconds)) for seconds in (LONG, 1e12, 1e300)]
    flight.land()
    assert [follower.result() for follower in followers] == [(DECISION, False)] * 3


def test_after_a_flight_the_next_caller_evaluates_again() -> None:
    single = SingleFlight()

    def fail() -> Decision:
        raise SarkError("no")

    for _ in range(2):
        with pytest.raises(SarkError):
            single.run(KEY, NO_DEADLINE, fail)
        assert single.run(KEY, NO_DEADLINE, lambda: DECISION) == (DECISION, True)
    assert single._flights == {}


def test_keys_do_not_wait_for_each_other() -> None:
    flight = Flight()
    assert flight.single.run(b"other", NO_DEADLINE, lambda: DECISION) == (DECISION, True)
    flight.land()


def test_threads_that_come_and_go_all_get_an_answer_to_their_own_question() -> None:
    single = SingleFlight()

    def decision(number: int) -> Callable[[], Decision]:
        return lambda: Decision(DecisionId(str(number)), DECISION.verdict, Tier.EVALUATED, {})

    def run(thread: int) -> None:
        for turn in range(1000):
            number = (thread + turn) % 3
            got, _ = single.run(str(number).encode(), NO_DEADLINE, decision(number))
            assert got.id == str(number)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, thread) for thread in range(8)]:
            done.result()
    assert single._flights == {}
