"""The signed store believes nothing but what was signed, for this key and kind, in this run of Redis, and in time."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.cache import signed
from sark_pdp.cache.keyring import Keyring
from sark_pdp.cache.redis_connection import RedisServer
from sark_pdp.cache.redis_link import RedisLink
from sark_pdp.cache.signed import SignedStore, Stored
from sark_pdp.model import Seconds
from tests.fix_native import wait_until
from tests.fix_redis import RedisProcess, StartRedis

KIND, OTHER_KIND = "decision", "attributes"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MAC, AS_OF, EXPIRES, PAYLOAD = 1, 33, 41, 49
"""Where the parts of a value begin, after the byte of the version."""


class Shared:
    """A store on a real Redis, and what is in it below the prefix."""

    def __init__(self, redis: RedisProcess, keys: Path, prefix: str) -> None:
        self.redis, self.prefix = redis, prefix
        self.link = RedisLink(RedisServer(redis.url), Seconds(10.0))
        self.store = SignedStore(self.link, Keyring(keys), prefix)
        self.link.start()
        self.store.start()
        wait_until(lambda: self.link.run_id)

    def close(self) -> None:
        self.store.close()
        self.link.close()

    def put(
        self, payload: bytes, *, kind: str = KIND, key: bytes = KEY, age: float = 0.0, lives: float = 600.0
    ) -> bytes:
        """Its name in Redis, as soon as it is there."""
        names = set(self.names())
        now = time.time()
        self.store.put_later(kind, [(key, Stored(payload, now - age, now + lives))], self.link.run_id)
        (name,) = wait_until(lambda: set(self.names()) - names)
        assert isinstance(name, bytes)
        return name

    def names(self) -> list[bytes]:
        found: list[bytes] = self.redis.ask("KEYS", f"{self.prefix}:*")
        return found

    def raw(self, name: bytes) -> bytes:
        value: bytes = self.redis.ask("GET", name)
        return value

    def set(self, name: bytes, value: bytes) -> None:
        """By hand, and without an end."""
        self.redis.ask("SET", name, value)

    def get(self, kind: str = KIND, key: bytes = KEY) -> bytes | None:
        """The payload, where it is believed."""
        (found,) = self.store.get_many(kind, [key])
        return None if found is None else found.payload

    def disbelieves(self, name: bytes, value: bytes, oddity: str | None = None) -> bool:
        """Whether a value that is put there by hand is a miss, and counted once."""
        before = self.store.oddities
        self.set(name, value)
        missed = self.get() is None
        more = {
            reason: count - before[reason] for reason, count in self.store.oddities.items() if count > before[reason]
        }
        return missed and sum(more.values()) == 1 and (oddity is None or oddity in more)


def write_keys(file: Path, *keys: str) -> Path:
    file.write_text("".join(f"{key}\n" for key in keys))
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def secret() -> str:
    return secrets.token_hex(32)


@pytest.fixture(scope="module")
def shared(redis_server: RedisProcess, secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    made = Shared(redis_server, write_keys(tmp_path_factory.mktemp("keys") / "mac", secret), f"forged-{secret[:8]}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def kept(shared: Shared) -> tuple[bytes, bytes]:
    """Name and bytes of one that is believed."""
    name = shared.put(b"outcome: deny")
    assert shared.get() == b"outcome: deny"
    return name, shared.raw(name)


# What is made of a good value.
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "the version alone": lambda raw: raw[:1],
    "cut within the MAC": lambda raw: raw[:20],
    "cut within the times": lambda raw: raw[: EXPIRES - 1],
    "without a payload": lambda raw: raw[:PAYLOAD],
    "the last byte missing": lambda raw: raw[:-1],
    "a byte more": lambda raw: raw + b"\0",
    "twice": lambda raw: raw + raw,
    "the version of before": lambda raw: b"\0" + raw[1:],
    "the version of later": lambda raw: bytes([raw[0] + 1]) + raw[1:],
    "no MAC": lambda raw: raw[:MAC] + bytes(AS_OF - MAC) + raw[AS_OF:],
    "another payload": lambda raw: raw.replace(b"deny", b"allow"),
    "another payload of this length": lambda raw: raw.replace(b"outcome: deny", b"outcome:allow"),
    "younger than it is": lambda raw: raw[:AS_OF] + pack(">d", time.time()) + raw[EXPIRES:],
    "a longer life": lambda raw: raw[:EXPIRES] + pack(">d", time.time() + 3600) + raw[PAYLOAD:],
    "the payload alone": lambda raw: raw[PAYLOAD:],
    "text": lambda _: b'{"allow": true}',
    "a mebibyte": lambda raw: raw[:PAYLOAD] + bytes(1 << 20),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_value_is_a_miss(shared: Shared, kept: tuple[bytes, bytes], change: str) -> None:
    name, raw = kept
    assert shared.disbelieves(name, CHANGES[change](raw))
    shared.set(name, raw)
    assert shared.get() == b"outcome: deny"


@given(data=st.data())
def test_no_bit_of_it_can_be_changed(shared: Shared, kept: tuple[bytes, bytes], data: st.DataObject) -> None:
    name, raw = kept
    bits = data.draw(st.sets(st.integers(0, 8 * len(raw) - 1), min_size=1, max_size=8))
    changed = int.from_bytes(raw) ^ sum(1 << bit for bit in bits)
    assert shared.disbelieves(name, changed.to_bytes(len(raw)))


@given(data=st.data())
def test_no_two_values_make_a_third(shared: Shared, kept: tuple[bytes, bytes], data: st.DataObject) -> None:
    """The beginning of one and the end of the other, for all that both are good, or bytes of any kind in between."""
    name, raw = kept
    other = raw[:AS_OF] + pack(">dd", time.time() - 1, time.time() + 60) + b"outcome: allow"
    source, end = data.draw(st.permutations([raw, other]))
    cut, resume = data.draw(st.integers(0, len(source))), data.draw(st.integers(0, len(end)))
    made = source[:cut] + data.draw(st.binary(max_size=8)) + end[resume:]
    if made != raw:
        assert shared.disbelieves(name, made)


@pytest.mark.parametrize(
    ("kind", "key"),
    [(KIND, b"x" * 32), (KIND, KEY[:-1]), (KIND, b"k" * 33), (OTHER_KIND, KEY), (OTHER_KIND, OTHER_KEY)],
)
def test_a_value_of_another_key_or_kind_is_a_miss(
    shared: Shared, kept: tuple[bytes, bytes], kind: str, key: bytes
) -> None:
    elsewhere = shared.put(b"outcome: allow", kind=kind, key=key)
    assert shared.get(kind, key) == b"outcome: allow"
    assert shared.disbelieves(kept[0], shared.raw(elsewhere), "wrong_mac")


def test_what_is_no_text_of_bytes_is_a_miss(shared: Shared, kept: tuple[bytes, bytes]) -> None:
    name, raw = kept
    for command in (("RPUSH", name, raw), ("HSET", name, "field", raw), ("SADD", name, raw)):
        shared.redis.ask("DEL", name)
        shared.redis.ask(*command)
        assert shared.get() is None
    shared.redis.ask("DEL", name)
    shared.set(name, raw)


def test_a_bad_value_costs_only_itself(shared: Shared, kept: tuple[bytes, bytes]) -> None:
    name, raw = kept
    beside = b"b" * 32
    shared.put(b"beside", key=beside)
    shared.set(name, raw[:-1])
    found = shared.store.get_many(KIND, [KEY, beside, b"absent"])
    assert [each and each.payload for each in found] == [None, b"beside", None]


class Later:
    """The clock of the machine, ten minutes on."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        return time.time() + 600.0


def test_a_value_that_is_put_back_after_its_time_is_a_miss(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"e" * 32
    name = shared.put(b"outcome: allow", key=key, lives=600.0)
    raw = shared.raw(name)
    assert shared.get(key=key) == b"outcome: allow"
    monkeypatch.setattr(signed, "time", Later)
    shared.set(name, raw)
    before = shared.store.oddities["expired"]
    assert shared.get(key=key) is None
    assert shared.store.oddities["expired"] == before + 1


def test_a_value_from_the_future_is_a_miss(shared: Shared) -> None:
    """As a machine whose clock is ahead would sign it."""
    key = b"f" * 32
    shared.put(b"outcome: allow", key=key, age=-60.0)
    before = shared.store.oddities["from_the_future"]
    assert shared.get(key=key) is None
    assert shared.store.oddities["from_the_future"] == before + 1


def test_a_value_of_an_earlier_run_of_redis_is_a_miss(start_redis: StartRedis, secret: str, tmp_path: Path) -> None:
    with contextlib.closing(Shared(start_redis(), write_keys(tmp_path / "mac", secret), "runs")) as shared:
        old_name = shared.put(b"outcome: allow")
        old_raw, old_run = shared.raw(old_name), shared.link.run_id
        shared.redis.restart()
        wait_until(lambda: shared.link.run_id not in {None, old_run})
        # Under the name of before nobody looks for it; under the one of now it is not believed.
        shared.set(old_name, old_raw)
        assert shared.get() is None
        name = shared.put(b"outcome: deny")
        assert shared.get() == b"outcome: deny"
        assert shared.disbelieves(name, old_raw, "wrong_mac")


def test_keys_rotate_and_a_stranger_s_is_none(
    redis_server: RedisProcess, redis_prefix: str, secret: str, tmp_path: Path
) -> None:
    other = secrets.token_hex(32)
    files = {
        "old": write_keys(tmp_path / "old", secret),
        "both": write_keys(tmp_path / "both", other, secret),
        "new": write_keys(tmp_path / "new", other),
    }
    with contextlib.ExitStack() as opened:
        stores = {
            name: opened.enter_context(contextlib.closing(Shared(redis_server, file, redis_prefix)))
            for name, file in files.items()
        }
        signed_by: dict[str, bytes] = {}
        for name, each in stores.items():
            signed_by[name] = key = name.encode().ljust(32)
            each.put(b"signed", key=key)
        believed = {name: [by for by, key in signed_by.items() if each.get(key=key)] for name, each in stores.items()}
    # The first key of a file signs.
    assert believed == {"old": ["old"], "both": ["old", "both", "new"], "new": ["both", "new"]}
