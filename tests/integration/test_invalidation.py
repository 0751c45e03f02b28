"""Invalidations among processes that share a Redis, in every order of events that could bring an old answer back.

A generation that is another one is an answer that is not found any more, so that is what is looked at.
"""

from collections.abc import Callable

import pytest

from sark_pdp.cache import subjects
from tests.fix_generations import PASSING, PATIENCE, Process, StartProcess, a_question, asked, eventually
from tests.fix_redis import RedisProcess, RedisProxy, StartRedis

ADA, BOB = subjects.user("ada"), subjects.user("bob")
OF_ADA, OF_BOB = a_question("ada"), a_question("bob")


@pytest.fixture
def nonce(redis_prefix: str) -> Callable[[str], str]:
    """The key of a subject in Redis."""
    return lambda subject: f"{redis_prefix}:generation:{subject}"


def two(start: StartProcess, url: str) -> tuple[Process, Process]:
    """Both trust what they know of Ada and Bob."""
    processes = start(url), start(url)
    for process in processes:
        process.wait_linked()
        process.wait_trusted(OF_ADA, OF_BOB)
    return processes


def test_every_process_has_the_same_generations(start_process: StartProcess, redis_server: RedisProcess) -> None:
    one, other = two(start_process, redis_server.url)
    assert one.ask() == other.ask() == one.known() == other.known()
    names = [subjects.ALL, ADA, subjects.tool("new to both")]
    assert one.generations.of(names) == other.generations.of(names)


def test_an_invalidation_reaches_other_processes_and_leaves_what_it_is_not_about(
    start_process: StartProcess, redis_server: RedisProcess
) -> None:
    one, other = two(start_process, redis_server.url)
    before = one.ask(OF_ADA)
    of_bob = one.ask(OF_BOB)
    assert one.generations.invalidate([ADA])
    eventually(lambda: other.known(OF_ADA) is None, "the message was not heard")
    # Bob's is a hit in both, with no question to Redis.
    assert one.known(OF_BOB) == other.known(OF_BOB) == of_bob
    assert one.ask(OF_ADA) == other.ask(OF_ADA) != before


def test_whoever_asks_after_an_invalidation_finds_nothing_from_before_in_its_own_process(
    start_process: StartProcess, redis_server: RedisProcess
) -> None:
    one, _ = two(start_process, redis_server.url)
    before = one.ask()
    one.generations.invalidate([ADA])
    assert one.known() is None
    assert one.ask() != before


def test_what_was_read_before_an_invalidation_and_arrives_after_it_is_not_held(
    start_process: StartProcess, redis_server: RedisProcess
) -> None:
    one, other = two(start_process, redis_server.url)
    before = one.ask()
    other.generations.heard([ADA])

    def meanwhile() -> None:
        one.generations.invalidate([ADA])
        eventually(lambda: one.channel.counts["heard"] >= 1 and other.channel.counts["heard"] >= 1, "not heard")

    other.hooked.meanwhile = meanwhile
    assert other.ask() == before
    assert other.known() is None
    assert one.ask() == other.ask() != before


def test_what_was_read_before_trust_was_lost_and_arrives_after_it_is_not_held(
    start_process: StartProcess, redis_server: RedisProcess
) -> None:
    """A message may have been missed in between."""
    process, _ = two(start_process, redis_server.url)
    process.generations.heard([ADA])

    def meanwhile() -> None:
        process.generations.distrust()
        process.generations.trust(float("inf"))

    process.hooked.meanwhile = meanwhile
    before = process.ask()
    assert process.known() is None
    assert process.ask() == before


def test_a_lost_message_costs_no_more_than_the_lifetime_of_what_was_read(
    start_process: StartProcess, redis_server: RedisProcess, nonce: Callable[[str], str]
) -> None:
    """The process that invalidated died after the first command of its two."""
    process = start_process(redis_server.url, ttl=1.0)
    process.wait_linked()
    process.wait_trusted()
    before = process.ask()
    redis_server.ask("SET", nonce(ADA), b"n" * 16)
    eventually(lambda: process.ask() != before, "what was read is used for ever")


def test_what_every_answer_needs_is_read_again_before_a_request_has_to_wait_for_it(
    start_process: StartProcess, redis_server: RedisProcess
) -> None:
    process = start_process(redis_server.url, ttl=2.0)
    process.wait_linked()
    process.wait_trusted()
    _, until = process.generations._held[subjects.ALL]
    eventually(lambda: process.generations._held.get(subjects.ALL, (b"", 0.0))[1] > until, "nobody read it again")


def test_a_generation_that_was_evicted_is_a_new_one(
    start_process: StartProcess, redis_server: RedisProcess, nonce: Callable[[str], str]
) -> None:
    one, other = two(start_process, redis_server.url)
    before = one.ask()
    redis_server.ask("DEL", nonce(ADA))
    for process in (one, other):
        process.generations.heard([ADA])
    assert before not in {one.ask(), other.ask(), one.ask(), other.ask()}
    assert one.ask() == other.ask()


def test_a_channel_that_stalls_is_not_trusted_and_what_did_not_change_comes_back(
    start_process: StartProcess, redis_server: RedisProcess, redis_proxy: RedisProxy
) -> None:
    one = start_process(redis_server.url, trust=PASSING)
    other = start_process(redis_server.url, channel_url=redis_proxy.url, trust=PASSING)
    for process in (one, other):
        process.wait_linked()
        process.wait_trusted(OF_ADA, OF_BOB)
    before, of_bob = other.ask(OF_ADA), other.ask(OF_BOB)
    redis_proxy.stalled = True
    one.generations.invalidate([ADA])
    # Nothing tells it, but the heartbeats that do not come.
    eventually(lambda: other.known(OF_BOB) is None, "a channel without heartbeats is trusted")
    assert other.known(OF_ADA) is None
    assert other.ask(OF_ADA) == one.ask(OF_ADA) != before
    assert other.ask(OF_BOB) == of_bob
    redis_proxy.stalled = False
    other.wait_trusted(OF_ADA, OF_BOB)
    assert other.ask(OF_ADA) == one.ask(OF_ADA)
    assert other.ask(OF_BOB) == of_bob


def test_a_channel_that_is_cut_is_made_anew(
    start_process: StartProcess, redis_server: RedisProcess, redis_proxy: RedisProxy
) -> None:
    process = start_process(redis_server.url, channel_url=redis_proxy.url)
    process.wait_linked()
    process.wait_trusted()
    before = process.ask()
    redis_proxy.refuse()
    eventually(lambda: process.channel.counts["lost"], "nobody noticed")
    assert process.known() is None
    assert process.channel.problem
    assert process.ask() == before
    redis_proxy.accept_again()
    process.wait_trusted()
    assert process.ask() == before


def test_messages_that_say_nothing_are_counted_and_do_no_harm(
    start_process: StartProcess, redis_server: RedisProcess, redis_prefix: str
) -> None:
    process, _ = two(start_process, redis_server.url)
    before = process.ask()
    odd = [b"", b"user:ada", b"\x91\xc1", b"\x92\x01\x02", b"\x91\xc4\x01\xff", b"\x80", b"\xdd\xff\xff\xff\xff"]
    for message in odd:
        assert redis_server.ask("PUBLISH", f"{redis_prefix}:invalidations", message) == 2
    eventually(lambda: process.channel.counts["malformed"] == len(odd), "not all were counted")
    assert process.known() == before
    assert not process.channel.problem


def test_nothing_from_before_a_restart_is_believed(
    start_process: StartProcess, start_redis: StartRedis, nonce: Callable[[str], str], redis_prefix: str
) -> None:
    """Redis comes back empty; then somebody restores what was in it by hand."""
    server = start_redis()
    process = start_process(server.url)
    process.wait_linked()
    process.wait_trusted()
    before = process.ask()
    run_id = process.link.run_id
    keys = server.ask("KEYS", f"{redis_prefix}:generation:*")
    values = server.ask("MGET", *keys)
    server.restart()
    server.ask("MSET", *(part for pair in zip(keys, values, strict=True) for part in pair))
    eventually(lambda: process.link.run_id not in (None, run_id), "the link did not come back")
    # The channel is cut as well, but its thread may not have had its turn.
    eventually(lambda: process.ask() != before, "it is believed after a restart")
    process.wait_trusted()
    assert process.known() != before
    assert server.ask("GET", nonce(ADA)) == values[keys.index(nonce(ADA).encode())]


def test_a_failover_to_a_replica_that_lags_brings_no_former_generation_back(
    start_process: StartProcess, start_redis: StartRedis, redis_prefix: str
) -> None:
    former, replica = start_redis(), start_redis()
    proxy = RedisProxy(former.socket)
    try:
        process = start_process(proxy.url)
        process.wait_linked()
        process.wait_trusted()
        before, run_id = process.ask(), process.link.run_id
        # What the replica has: all but the invalidation.
        for key in former.ask("KEYS", f"{redis_prefix}:generation:*"):
            replica.ask("SET", key, former.ask("GET", key))
        assert process.generations.invalidate([ADA])
        after = process.ask()
        proxy.lead_to(replica.socket)
        proxy.cut()
        eventually(lambda: process.link.run_id not in (None, run_id), "the link did not follow")
        eventually(lambda: process.ask() not in {before, after}, "what the former server told is believed")
        process.wait_trusted()
        assert process.known() not in {before, after}
        process.close()
    finally:
        proxy.close()


def test_a_generation_restored_by_hand_is_the_old_one_until_the_server_is_another(
    start_process: StartProcess, start_redis: StartRedis, nonce: Callable[[str], str]
) -> None:
    """Whoever can write to Redis can replay: what is kept under the old generation bounds that by its signed expiry."""
    server = start_redis()
    process = start_process(server.url)
    process.wait_linked()
    process.wait_trusted()
    before, old = process.ask(), server.ask("GET", nonce(ADA))
    process.generations.invalidate([ADA])
    assert process.ask() != before
    server.ask("SET", nonce(ADA), old)
    process.generations.heard([ADA])
    assert process.ask() == before
    server.restart()
    eventually(lambda: process.link.up and process.ask() != before, "it is believed after a restart")
    server.ask("SET", nonce(ADA), old)
    process.generations.heard([ADA])
    assert process.ask() != before


def test_while_redis_is_away_nothing_from_before_is_found_and_invalidations_are_delivered_later(
    start_process: StartProcess, start_redis: StartRedis
) -> None:
    server = start_redis()
    one, other = (start_process(server.url, timeout=0.5, trust=PASSING) for _ in range(2))
    for process in (one, other):
        process.wait_linked()
        process.wait_trusted(OF_ADA, OF_BOB)
    # A question that Redis did not answer in time gets a generation that nobody else has.
    eventually(lambda: one.ask(OF_ADA) == other.ask(OF_ADA), "they do not share the generation of Ada")
    eventually(lambda: one.ask(OF_BOB) == other.ask(OF_BOB), "they do not share that of Bob")
    before, of_bob = one.ask(OF_ADA), one.ask(OF_BOB)
    server.freeze()
    try:
        eventually(lambda: one.ask(OF_BOB) != of_bob, "what was known before is still believed")
        alone = one.ask(OF_ADA)
        assert alone not in {before, other.ask(OF_ADA)}
        # It keeps what it decides now, and needs not wait for it.
        eventually(lambda: one.known(OF_ADA) == one.ask(OF_ADA), "nothing is known while Redis is away")
        alone, bob_alone = one.ask(OF_ADA), one.ask(OF_BOB)
        assert not one.generations.invalidate([ADA])
        assert one.ask(OF_ADA) != alone
        assert one.ask(OF_BOB) == bob_alone
    finally:
        server.thaw()
    for process in (one, other):
        process.wait_trusted(OF_ADA, OF_BOB)
    eventually(lambda: before not in asked(one.generations, OF_ADA), "the invalidation was forgotten")
    eventually(lambda: other.ask(OF_ADA) == one.ask(OF_ADA), "the other was not told")
    eventually(lambda: one.ask(OF_BOB) == other.ask(OF_BOB) == of_bob, "Bob's changed, and nobody invalidated it")


def test_each_time_that_redis_is_away_is_another(start_process: StartProcess, start_redis: StartRedis) -> None:
    """Of what happened in between nothing was heard."""
    server = start_redis()
    process = start_process(server.url)
    seen: set[bytes] = set()
    for _ in range(3):
        process.wait_trusted()
        assert not seen & {process.ask()}
        server.kill()
        eventually(lambda: not process.link.up and not process.generations.trusted, "nobody notices")
        eventually(lambda: process.known() is not None or not process.ask(), "nothing is known")
        alone = process.ask()
        assert alone == process.known()
        assert alone not in seen
        seen.add(alone)
        server.start()


def test_a_replica_that_hears_of_nothing_is_not_trusted(start_process: StartProcess, start_redis: StartRedis) -> None:
    """It answers, but writes go elsewhere, and so do invalidations."""
    server = start_redis()
    process = start_process(server.url, trust=PASSING)
    process.wait_linked()
    process.wait_trusted()
    before = process.ask()
    server.ask("REPLICAOF", "127.0.0.1", "1")
    eventually(lambda: process.known() != before, "it is trusted")
    server.ask("REPLICAOF", "NO", "ONE")
    process.wait_trusted()


def test_closing_takes_a_moment_whatever_redis_does(start_process: StartProcess, start_redis: StartRedis) -> None:
    server = start_redis()
    process = start_process(server.url)
    process.wait_linked()
    process.wait_trusted()
    server.freeze()
    try:
        process.channel.close()
        eventually(lambda: not process.channel._thread.is_alive(), f"it does not end within {PATIENCE} s")
        assert process.known() is None
    finally:
        server.thaw()
