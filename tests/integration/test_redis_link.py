"""The link to Redis: what it answers when all is well, and that nobody waits for a Redis that is not."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sark_pdp.cache.redis_connection import Command, RedisServer
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.model import Seconds
from tests.fix_redis import RedisProcess, RedisProxy, StartRedis
from tests.fix_serve import free_port

PATIENT = Seconds(10.0)
"""A timeout that no busy machine reaches."""
SHORT = Seconds(0.05)

MakeLink = Callable[..., RedisLink]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def make_link() -> Iterator[MakeLink]:
    """A started link; `up` waits until Redis is there."""
    with contextlib.ExitStack() as made:

        def make(url: str, timeout: Seconds = PATIENT, *, up: bool = True, **files: Path) -> RedisLink:
            link = RedisLink(RedisServer(url, **files), timeout)
            made.callback(link.close)
            link.start()
            if up:
                until(lambda: link.up)
            return link

        yield make


def test_replies_come_in_the_order_of_the_commands(
    make_link: MakeLink, redis_server: RedisProcess, redis_prefix: str
) -> None:
    link = make_link(redis_server.url)
    key = f"{redis_prefix}:a"
    replies = link.execute([("SET", key, b"\x00\xff\r\n", "PX", 60_000), ("GET", key), ("GET", "none"), ("DEL", key)])
    assert replies == [b"OK", b"\x00\xff\r\n", None, 1]
    assert link.execute([("MGET", key, key)]) == [[None, None]]
    assert sum(link.errors.values()) == 0
    assert link.problems() == []


def test_large_replies_and_many_commands_pass(make_link: MakeLink, redis_proxy: RedisProxy, redis_prefix: str) -> None:
    link = make_link(redis_proxy.url)
    large = bytes(range(256)) * 2000
    for number in range(3):
        assert link.execute([("SET", f"{redis_prefix}:{number}", large, "PX", 60_000)]) == [b"OK"]
    asked = [("GET", f"{redis_prefix}:{number % 3}") for number in range(60)]
    assert link.execute(asked) == [large] * 60


def test_threads_ask_at_the_same_time_and_get_their_own(
    make_link: MakeLink, redis_server: RedisProcess, redis_prefix: str
) -> None:
    link = make_link(redis_server.url)

    def run(thread: int) -> None:
        for turn in range(50):
            key, value = f"{redis_prefix}:{thread}", f"{thread}.{turn}"
            assert link.execute([("SET", key, value, "PX", 60_000), ("GET", key)]) == [b"OK", value.encode()]

    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(run, thread) for thread in range(12)]:
            done.result()


def test_the_run_id_is_the_servers_and_listeners_hear_of_each_change(
    make_link: MakeLink, start_redis: StartRedis
) -> None:
    server = start_redis()
    heard: list[bytes | None] = []
    link = RedisLink(RedisServer(server.url), PATIENT)
    link.on_change(heard.append)
    link.start()
    try:
        until(lambda: len(heard) == 1)
        first = server.ask("INFO", "server")["run_id"].encode()
        assert link.run_id == first
        server.restart()
        # Nobody asks meanwhile: the link finds out by itself.
        until(lambda: heard[-1] not in (None, first))
        assert heard == [first, None, link.run_id]
        assert server.ask("INFO", "server")["run_id"].encode() == link.run_id
    finally:
        link.close()
    assert link.run_id is None
    assert link.execute([("PING",)]) is None


def ask_until_open(link: RedisLink) -> None:
    """Asks until nobody is let through any more; each time in vain."""
    end = time.monotonic() + 30
    while link.up:
        assert link.execute([("PING",)]) is None
        assert time.monotonic() < end


def stall(_server: RedisProcess, proxy: RedisProxy) -> None:
    proxy.stalled = True


def drip(_server: RedisProcess, proxy: RedisProxy) -> None:
    proxy.drips = True


def cut_and_refuse(_server: RedisProcess, proxy: RedisProxy) -> None:
    proxy.refuse()


def freeze(server: RedisProcess, _proxy: RedisProxy) -> None:
    server.freeze()


def kill(server: RedisProcess, _proxy: RedisProxy) -> None:
    server.kill()


def flow(_server: RedisProcess, proxy: RedisProxy) -> None:
    proxy.stalled = proxy.drips = False


def accept(_server: RedisProcess, proxy: RedisProxy) -> None:
    proxy.accept_again()


def thaw(server: RedisProcess, _proxy: RedisProxy) -> None:
    server.thaw()


def start(server: RedisProcess, _proxy: RedisProxy) -> None:
    server.start()


Change = Callable[[RedisProcess, RedisProxy], None]
# What happens to Redis, what ends it, and as what it is counted, whichever thread meets it first.
OUTAGES: dict[str, tuple[Change, Change, set[str]]] = {
    "hangs": (stall, flow, {"timeout"}),
    "answers drop by drop": (drip, flow, {"timeout"}),
    "refuses": (cut_and_refuse, accept, {"connection"}),
    "is frozen": (freeze, thaw, {"timeout"}),
    "is killed": (kill, start, {"connection"}),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_nobody_waits_for_a_redis_that_does_not_answer_and_it_comes_back_by_itself(
    make_link: MakeLink, start_redis: StartRedis, outage: str
) -> None:
    server = start_redis()
    proxy = RedisProxy(server.socket)
    breaks, ends, reasons = OUTAGES[outage]
    try:
        link = make_link(proxy.url, SHORT)
        breaks(server, proxy)
        ask_until_open(link)
        assert link.run_id is None
        assert "Redis is not to be had since" in link.problems()[0]
        # Refused at once, without a connection being made or asked.
        before = {**link.errors}
        for _ in range(1000):
            assert link.execute([("PING",)]) is None
        assert reasons & {reason for reason, count in before.items() if count}
        assert link.errors["busy"] == before["busy"]
        ends(server, proxy)
        until(lambda: link.execute([("PING",)]) == [b"PONG"])
    finally:
        server.thaw() if outage == "is frozen" else None
        proxy.close()


def test_a_reply_that_comes_drop_by_drop_is_bounded_as_a_whole(
    make_link: MakeLink, redis_proxy: RedisProxy, redis_prefix: str
) -> None:
    """Each drop comes long before the timeout; all of them together would take a minute."""
    link = make_link(redis_proxy.url, Seconds(1.0))
    assert link.execute([("SET", f"{redis_prefix}:x", b"x" * 60_000, "PX", 60_000)]) == [b"OK"]
    redis_proxy.drips = True
    began = time.monotonic()
    assert link.execute([("GET", f"{redis_prefix}:x")]) is None
    assert time.monotonic() - began < 30


def test_a_cut_connection_is_replaced_and_costs_no_more_than_the_calls_on_it(
    make_link: MakeLink, redis_proxy: RedisProxy
) -> None:
    link = make_link(redis_proxy.url)
    redis_proxy.cut()
    until(lambda: link.execute([("PING",)]) == [b"PONG"])


def test_a_late_reply_is_nobody_elses(make_link: MakeLink, redis_proxy: RedisProxy, redis_prefix: str) -> None:
    """What one caller stopped waiting for must not be taken for the answer to the next."""
    link = make_link(redis_proxy.url, SHORT)
    for number in range(5):
        link.execute([("SET", f"{redis_prefix}:{number}", str(number), "PX", 60_000)])
    redis_proxy.stalled = True
    assert link.execute([("GET", f"{redis_prefix}:1")]) is None
    redis_proxy.stalled = False
    for number in (2, 3, 4):
        asked: list[Command] = [("GET", f"{redis_prefix}:{number}")]
        until(partial(answers, link, asked, str(number).encode()))


def answers(link: RedisLink, asked: list[Command], expected: bytes) -> bool:
    """Whether it does now; where it answers, nothing else is right."""
    replies = link.execute(asked)
    assert replies in (None, [expected])
    return replies is not None


def test_a_full_server_refuses_writes_but_is_still_read(make_link: MakeLink, start_redis: StartRedis) -> None:
    server = start_redis("--maxmemory-policy", "noeviction")
    server.ask("SET", "there", "1")
    link = make_link(server.url)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    for _ in range(10):
        assert link.execute([("SET", "more", "2")]) is None
    assert link.errors["memory"] == 10
    assert link.up
    assert link.execute([("GET", "there")]) == [b"1"]


def test_a_connection_that_cannot_be_had_costs_none_of_those_that_there_are(
    make_link: MakeLink, start_redis: StartRedis
) -> None:
    server = start_redis()
    link = make_link(server.url)
    with contextlib.closing(server.client()) as client:
        client.ping()
        # What looks after the link, and what requests use.
        client.config_set("maxclients", 3)
        taken = link._taken(time.monotonic() + 30)
        assert taken is not None
        link._wake.set()
        until(lambda: link.errors["connection"])
        link._give_back(*taken)
        for _ in range(100):
            assert link.execute([("PING",)]) == [b"PONG"]
        assert link.up


# What is wrong with the settings, and what the status says of it.
MISTAKES: list[tuple[str, bytes | None, str]] = [
    ("redis://127.0.0.1:1", None, "cache.l2.url"),
    ("unix:///nowhere/redis.sock", None, "cache.l2.url"),
    ("", None, "cache.l2.password_file"),
    ("", b"wrong", "cache.l2.password_file"),
    ("", b"\xff", "cache.l2.password_file"),
]


@pytest.mark.parametrize(("url", "password", "told"), MISTAKES)
def test_the_status_says_what_to_look_at(
    start_redis: StartRedis, tmp_path: Path, url: str, password: bytes | None, told: str
) -> None:
    server = start_redis()
    server.ask("CONFIG", "SET", "requirepass", "right")
    file = None if password is None else tmp_path / "password"
    if file is not None:
        file.write_bytes(password or b"")
    link = RedisLink(RedisServer(url or server.url, password_file=file), PATIENT)
    link.start()
    try:
        until(lambda: told in link.problems()[0])
        assert not link.up
    finally:
        link.close()


def test_a_replica_is_no_place_for_a_cache(make_link: MakeLink, start_redis: StartRedis) -> None:
    """Its generations may lag behind: what was invalidated on the other server would still count here."""
    server = start_redis()
    link = make_link(server.url)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    until(lambda: not link.up)
    until(lambda: "it is a replica" in "".join(link.problems()))
    server.ask("REPLICAOF", "NO", "ONE")
    until(lambda: link.up)


def test_a_server_that_is_loading_is_not_asked(make_link: MakeLink, start_redis: StartRedis) -> None:
    slowly = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    server = start_redis(*slowly)
    with contextlib.closing(server.client()) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(20_000):
            pipeline.set(f"key-{number}", b"x" * 20)
        pipeline.save()
        pipeline.execute()
    server.restart()
    link = make_link(server.url, up=False)
    until(lambda: link.errors["loading"])
    assert not link.up
    assert link.execute([("PING",)]) is None
    server.ask("CONFIG", "SET", "key-load-delay", "0")
    until(lambda: link.up)


def test_a_failover_to_another_server_is_another_run(make_link: MakeLink, start_redis: StartRedis) -> None:
    one, other = start_redis(), start_redis()
    proxy = RedisProxy(one.socket)
    try:
        link = make_link(proxy.url)
        first = link.run_id
        proxy.lead_to(other.socket)
        # Connections of before still lead to the first one; each new one to the other.
        proxy.cut()
        until(lambda: link.run_id not in (None, first))
        assert link.run_id == other.ask("INFO", "server")["run_id"].encode()
    finally:
        proxy.close()


def test_credentials_come_from_files_and_are_read_anew(
    make_link: MakeLink, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis()
    server.ask("ACL", "SETUSER", "pdp", "on", ">right", "~*", "&*", "+@all")
    username, password = tmp_path / "username", tmp_path / "password"
    username.write_text("pdp\n")
    password.write_text("wrong\n")
    link = make_link(server.url, up=False, username_file=username, password_file=password)
    until(lambda: link.errors["credentials"])
    assert not link.up
    password.write_text("right\n")
    until(lambda: link.up)
    reply = link.execute([("ACL", "WHOAMI")])
    assert reply == [b"pdp"]


def test_a_user_that_may_not_tell_the_run_of_the_server_is_refused(
    make_link: MakeLink, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis()
    server.ask("ACL", "SETUSER", "default", "-info")
    link = make_link(server.url, up=False)
    until(lambda: "may not INFO" in "".join(link.problems()))
    server.ask("ACL", "SETUSER", "default", "+info", "-config")
    until(lambda: link.up)
    assert link.problems() == []
    assert link.notes() == ["how Redis is configured is unknown: it refuses CONFIG GET"]


SETTINGS: list[tuple[list[str], str]] = [
    (["maxmemory", "0"], "Redis has no maxmemory"),
    (["maxmemory-policy", "noeviction"], "Redis has maxmemory-policy noeviction"),
    (["save", "900 1"], "Redis makes RDB snapshots"),
    (["appendfsync", "always"], "Redis has appendfsync always"),
    (["appendfsync", "everysec"], ""),
    (["maxmemory-policy", "allkeys-lfu"], ""),
]


@pytest.mark.parametrize(("setting", "problem"), SETTINGS)
def test_a_server_that_is_configured_to_do_harm_is_a_problem(
    make_link: MakeLink, start_redis: StartRedis, setting: list[str], problem: str
) -> None:
    server = start_redis("--appendonly", "yes")
    server.ask("CONFIG", "SET", *setting)
    link = make_link(server.url)
    problems = link.problems()
    assert [each[: len(problem)] for each in problems] == ([problem] if problem else [])
    assert link.notes() == []


def test_closing_does_not_wait_for_a_redis_that_hangs(redis_proxy: RedisProxy) -> None:
    redis_proxy.stalled = True
    link = RedisLink(RedisServer(redis_proxy.url), PATIENT)
    link.start()
    link.close(Seconds(0.01))
    assert link.execute([("PING",)]) is None
    redis_proxy.stalled = False
    until(lambda: "redis_link" not in {thread.name for thread in threading.enumerate() if thread is link._thread})


def test_a_server_with_the_recommended_settings_has_no_problem(make_link: MakeLink, start_redis: StartRedis) -> None:
    recommended = Path(__file__).parents[2] / "docs" / "redis.conf"
    server = start_redis("--include", str(recommended))
    assert server.ask("CONFIG", "GET", "tcp-backlog") == [b"tcp-backlog", b"4096"]
    link = make_link(server.url)
    assert (link.problems(), link.notes()) == ([], [])


# The name that is connected to, the authority that is trusted, the client's certificate, and whether Redis is reached.
OVER_TLS = [
    ("server.test", "ca", "client", True),
    ("server.test", "other-ca", "client", False),
    ("server.test", "ca", None, False),
    ("localhost", "ca", "client", False),
]


def test_over_tls_both_sides_prove_who_they_are(
    make_link: MakeLink, start_redis: StartRedis, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    files = {"ca-cert-file": "ca.pem", "cert-file": "server.pem", "key-file": "server.key"}
    options = [text for name, file in files.items() for text in (f"--tls-{name}", str(certificates / file))]
    start_redis("--tls-port", str(port), *options)
    resolve = socket.getaddrinfo

    def on_loopback(_host: str, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", on_loopback)
    for name, authority, client, reached in OVER_TLS:
        files_of = {"ca_file": certificates / f"{authority}.pem"}
        if client is not None:
            files_of["client_cert_file"] = certificates / f"{client}.pem"
            files_of["client_key_file"] = certificates / f"{client}.key"
        link = make_link(f"rediss://{name}:{port}", up=False, **files_of)
        until(partial(settled, link))
        assert link.up is reached, (name, authority, client)
        assert (link.execute([("PING",)]) == [b"PONG"]) is reached


def settled(link: RedisLink) -> bool:
    """Whether it is known that Redis is reached, or that it is not."""
    return link.up or link.errors["connection"] > 0
