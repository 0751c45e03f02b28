"""Puts the parts together that complete documents with what the registry says. `app` alone imports it."""

from collections.abc import Sequence
from typing import Final

from sark_pdp.attributes.decider import AttributedDecider
from sark_pdp.attributes.entries import Entry, Shared
from sark_pdp.attributes.names import NAMED_TOOL, SERVER, TOOL, USER
from sark_pdp.attributes.postgres import PostgresOptions, PostgresSource
from sark_pdp.attributes.resolution import Resolver
from sark_pdp.attributes.tiers import AttributeTiers, Lifetimes
from sark_pdp.cache import subjects
from sark_pdp.cache.memory import RecentlyUsed
from sark_pdp.cache.signed import SignedStore, Stored
from sark_pdp.errors import SettingsError
from sark_pdp.interfaces import Decider, Generations, RowKey, StoreStatistics
from sark_pdp.model import Seconds
from sark_pdp.observability.database import DatabaseMetrics
from sark_pdp.postgres.connections import holds_secret
from sark_pdp.settings import AttributeSettings

_KIND: Final = "attributes"
_DSN: Final = "attributes.postgres_dsn"


class Registry:
    """What `attributes.postgres_dsn` adds to a sidecar. `start` and `close` are called once each, by one thread."""

    def __init__(
        self,
        settings: AttributeSettings,
        dsn: str,
        generations: Generations,
        shared: SignedStore | None,
        max_staleness: Seconds,
    ) -> None:
        """Raises SettingsError for a connection string that cannot be used."""
        _check(dsn)
        self.metrics = DatabaseMetrics()
        self._trust_caller = settings.trust_caller
        self._source = PostgresSource(
            PostgresOptions(
                dsn,
                settings.postgres_password_file,
                settings.pool_size,
                settings.pool_overflow,
                settings.timeout,
            ),
            self.metrics,
        )
        memory: RecentlyUsed[RowKey, Entry] = RecentlyUsed(settings.l1.size)
        self._tiers = AttributeTiers(
            self._source,
            memory,
            None if shared is None else _SharedAttributes(shared),
            generations,
            subjects_of,
            Lifetimes(Seconds(min(settings.l1.ttl, settings.ttl)), settings.ttl, max_staleness),
        )

    def start(self) -> None:
        """Whether PostgreSQL is there or not."""
        self._source.start()

    def close(self) -> None:
        """Connections are closed."""
        self._source.close()

    def above(self, decider: Decider) -> Decider:
        """Completes the documents that this one decides on."""
        return AttributedDecider(decider, Resolver(self._tiers), trust_caller=self._trust_caller)

    def statistics(self) -> list[StoreStatistics]:
        """Of the tiers, now."""
        return self._tiers.statistics()

    def problems(self) -> list[str]:
        """For operators: a sentence without its full stop."""
        problem = self._source.problem
        return [f"PostgreSQL, which holds the registry, is away: {problem.rstrip('.')}"] if problem else []


def subjects_of(key: RowKey) -> tuple[str, ...]:
    """What an entry about this row counts on; an invalidation of one of them is one of the entry."""
    always = (subjects.ALL, subjects.ATTRIBUTES)
    match key:
        case (kind, id_) if kind == USER:
            return (*always, subjects.user(id_))
        case (kind, id_) if kind == SERVER:
            return (*always, subjects.server(id_))
        case (kind, id_) if kind == TOOL:
            return (*always, subjects.tool(id_))
        case (kind, server_id, name) if kind == NAMED_TOOL:
            return (*always, subjects.named(server_id, name))
        case _:
            return always


class _SharedAttributes:
    """Keeps attributes in Redis, beside decisions and under a kind of their own."""

    def __init__(self, store: SignedStore) -> None:
        self._store = store

    @property
    def run_id(self) -> bytes | None:
        return self._store.run_id

    def get_many(self, keys: Sequence[bytes], waited: Seconds) -> list[Shared | None]:
        found = self._store.get_many(_KIND, keys, waited)
        return [None if it is None else Shared(it.payload, it.as_of, it.expires) for it in found]

    def put_later(self, items: Sequence[tuple[bytes, Shared]], run_id: bytes | None) -> None:
        stored = [(key, Stored(it.payload, it.as_of, it.expires)) for key, it in items]
        self._store.put_later(_KIND, stored, run_id)


def _check(dsn: str) -> None:
    try:
        secret = holds_secret(dsn)
    except SettingsError as error:
        raise SettingsError(f"{_DSN}: {error}") from None
    if secret:
        raise SettingsError(
            f"{_DSN}: has a password in it, which others would see; write it to a file, and name that in"
            " attributes.postgres_password_file"
        )
