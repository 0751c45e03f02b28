"""What every decision store promises. Whoever writes another one adds it to `STORES`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from sark_pdp.cache.memory import MemoryStore
from sark_pdp.interfaces import CacheEntry, DecisionStore
from sark_pdp.model import Outcome, Seconds, Verdict

NewStore = Callable[[int], DecisionStore]
STORES: dict[str, NewStore] = {"memory": MemoryStore}

VERDICTS = [
    Verdict(Outcome.ALLOW, "because", True, b"true"),
    Verdict(Outcome.DENY, "", {"allow": False, "more": [1, 1.0, None, {"é": "\x00"}]}, b"{}"),
    Verdict(Outcome.UNDEFINED, "nothing"),
    Verdict(
        Outcome.ALLOW,
        "filtered",
        {"allow": True},
        b'{"allow": true}',
        remove_parameters=(("a", "b"), ("c",)),
        redact_parameters=(),
        filtered_parameters={"a": {"b": 1}},
        cache_ttl=Seconds(0.5),
    ),
]


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest) -> NewStore:
    return STORES[request.param]


def key(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


def entry(number: int = 0) -> CacheEntry:
    return CacheEntry(VERDICTS[number % len(VERDICTS)], 1_000.25 + number, 1_010.5 + number)


def test_nothing_is_known_at_first(new_store: NewStore) -> None:
    store = new_store(4)
    assert store.get(key(1)) is None
    assert (len(store), store.capacity) == (0, 4)


@pytest.mark.parametrize("number", range(len(VERDICTS)))
def test_what_was_put_is_returned_whole(new_store: NewStore, number: int) -> None:
    store = new_store(4)
    store.put(key(number), entry(number))
    for _ in range(2):
        assert store.get(key(number)) == entry(number)
    assert store.get(key(number + 1)) is None
    assert len(store) == 1


def test_a_key_has_the_entry_that_was_put_last(new_store: NewStore) -> None:
    store = new_store(4)
    for number in (1, 2, 3):
        store.put(key(0), entry(number))
    assert store.get(key(0)) == entry(3)
    assert len(store) == 1


def test_an_expired_entry_is_the_callers_to_judge(new_store: NewStore) -> None:
    store = new_store(4)
    store.put(key(0), CacheEntry(VERDICTS[0], -20.0, -10.0))
    assert store.get(key(0)) == CacheEntry(VERDICTS[0], -20.0, -10.0)


@pytest.mark.parametrize("capacity", [1, 2, 100])
def test_it_never_holds_more_than_its_capacity(new_store: NewStore, capacity: int) -> None:
    store = new_store(capacity)
    for number in range(3 * capacity):
        store.put(key(number), entry(number))
        assert len(store) <= capacity
        assert store.get(key(number)) == entry(number)


def test_it_holds_what_threads_put_at_the_same_time(new_store: NewStore) -> None:
    store = new_store(64)
    barrier = threading.Barrier(8)

    def run(thread: int) -> None:
        barrier.wait(30)
        for turn in range(2000):
            number = (thread * 7919 + turn) % 100
            store.put(key(number), entry(number))
            assert store.get(key(number + 1)) in (None, entry(number + 1))
            assert len(store) <= 64

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run, thread) for thread in range(8)]:
            done.result()
