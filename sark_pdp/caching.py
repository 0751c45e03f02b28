"""Puts the caches together: L1, and what sidecars share where there is Redis. `app` alone imports it."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sark_pdp.cache.choice import Choice
from sark_pdp.cache.generations import LocalGenerations
from sark_pdp.cache.keyring import Keyring
from sark_pdp.cache.l2 import SharedVerdicts
from sark_pdp.cache.memory import MemoryStore
from sark_pdp.cache.signed import SignedStore
from sark_pdp.cache.tiers import CachedDecider
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.errors import StartError
from sark_pdp.interfaces import Decider, Generations, StoreStatistics
from sark_pdp.model import Seconds
from sark_pdp.observability.shared_cache import EntrypointCosts, SharedCacheMetrics, SharedCacheReadings
from sark_pdp.settings import CacheSettings, L2Settings

if TYPE_CHECKING:
    from sark_pdp.cache.channel import Channel
    from sark_pdp.cache.redis_generations import RedisGenerations
    from sark_pdp.cache.redis_link import RedisLink


class Caches:
    """What `cache.*` makes of a sidecar. `start` and `close` are called once each, by one thread."""

    def __init__(self, settings: CacheSettings) -> None:
        """Raises StartError where the keys of L2 cannot be used."""
        self._l1 = settings.l1
        self.generations: Generations = LocalGenerations()
        self.signed: SignedStore | None = None
        """What sidecars share; None where they share nothing."""
        self.metrics: SharedCacheMetrics | None = None
        """Of what is shared; None where nothing is."""
        self._decider: CachedDecider | None = None
        self._verdicts: SharedVerdicts | None = None
        self._link: RedisLink | None = None
        self._channel: Channel | None = None
        self._running = ExitStack()
        if settings.l2.url is not None:
            self._l2 = settings.l2
            self._share(settings.l2, settings.l2.url, settings.l1.ttl)

    def start(self) -> None:
        """Begins to connect, where there is Redis; returns at once."""
        if self._link is None or self._channel is None or self.signed is None:
            return
        self._link.start()
        self._running.callback(self._link.close)
        self._channel.start()
        self._running.callback(self._channel.close)
        self.signed.start()
        self._running.callback(self.signed.close)

    def close(self) -> None:
        """Disconnects."""
        self._running.close()

    def above(self, evaluator: Evaluator) -> Decider:
        """Keeps what this one decides; called once."""
        l1 = self._l1
        if self.signed is not None and self._l2.mode != "off" and self._l2.ttl:
            self._verdicts = SharedVerdicts(self.signed, evaluator.verdict_of, self._l2.ttl, Choice(self._l2.mode))
        if not (l1.size and l1.ttl) and self._verdicts is None:
            return evaluator
        # Without L1 nothing outlives the moment that it is put there.
        ttl = l1.ttl if l1.size else Seconds(0.0)
        self._decider = CachedDecider(evaluator, MemoryStore(max(l1.size, 1)), ttl, self.generations, self._verdicts)
        return self._decider

    def statistics(self) -> list[StoreStatistics]:
        """Of the tiers, now."""
        found = [] if self._decider is None else [self._decider.statistics()]
        if self._verdicts is not None:
            found.append(replace(self._verdicts.statistics(), notes=tuple(self._notes())))
        return found

    def problems(self) -> list[str]:
        """For operators: sentences without their full stops."""
        if self._link is None or self._channel is None:
            return []
        found = self._link.problems()
        if self._link.up and self._channel.problem:
            found.append(self._channel.problem[:1].upper() + self._channel.problem[1:])
        return found

    def _notes(self) -> list[str]:
        if self._link is None:
            return []
        costs = [] if self._verdicts is None else self._verdicts.costs()
        return [*self._link.notes(), *map(_told, costs)]

    def _readings(
        self, link: "RedisLink", signed: SignedStore, generations: "RedisGenerations", channel: "Channel"
    ) -> SharedCacheReadings:
        return SharedCacheReadings(
            up=link.up,
            errors=link.errors,
            oddities=signed.oddities,
            dropped=signed.dropped,
            costs=[] if self._verdicts is None else self._verdicts.costs(),
            trusted=generations.trusted,
            channel=channel.counts,
        )

    def _share(self, l2: L2Settings, url: str, held: Seconds) -> None:
        # Megabytes, which a sidecar without Redis does not pay.
        from sark_pdp.cache.channel import Channel
        from sark_pdp.cache.redis_connection import RedisServer
        from sark_pdp.cache.redis_generations import RedisGenerations
        from sark_pdp.cache.redis_link import RedisLink

        if l2.mac_key_file is None:
            raise StartError("cache.l2.url needs cache.l2.mac_key_file")
        keyring = Keyring(l2.mac_key_file)
        server = RedisServer(
            url, l2.username_file, l2.password_file, l2.ca_file, l2.client_cert_file, l2.client_key_file
        )
        link = self._link = RedisLink(server, l2.timeout)
        generations = RedisGenerations(link, l2.prefix, held)
        link.on_change(generations.served_by)
        self.generations = generations
        channel = self._channel = Channel(link, generations, l2.prefix)
        signed = self.signed = SignedStore(link, keyring, l2.prefix)
        self.metrics = SharedCacheMetrics(lambda: self._readings(link, signed, generations, channel))


def _told(costs: EntrypointCosts) -> str:
    way = "Redis is asked" if costs.asks else "Redis is not asked"
    return f"{costs.entrypoint}: {way}; a round trip takes {_ms(costs.round_trip)}, a miss {_ms(costs.miss)}"


def _ms(seconds: Seconds | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds * 1000:.3f} ms"
