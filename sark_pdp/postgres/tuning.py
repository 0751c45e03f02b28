"""A postgresql.conf for a server of the audit trail, sized from its memory, processors and disk.

The shares of memory are those that PostgreSQL's own manual recommends
(<https://www.postgresql.org/docs/current/runtime-config-resource.html>); the rest is for a table that mostly grows.
"""

from enum import Enum
from typing import Final

from msgspec import Struct

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
LEAST_MEMORY: Final = 256 * _MIB
"""Less leaves no room for connections."""
_SORTS_AT_ONCE: Final = 3
"""Sorts and hash tables that one connection is taken to hold."""
_JOBS: Final = 16
"""Background workers of TimescaleDB: a launcher, a scheduler for each database, and policies at work."""


class Disk(Enum):
    """What the data are kept on."""

    SSD = "ssd"
    HDD = "hdd"


class Machine(Struct, frozen=True):
    """What the server may use of its machine."""

    memory: int
    """Bytes, `LEAST_MEMORY` at least."""
    processors: int
    disk: Disk = Disk.SSD
    connections: int = 100
    timescaledb: bool = False


class Setting(Struct, frozen=True):
    """One line."""

    name: str
    value: str
    meaning: str


def settings(machine: Machine) -> list[Setting]:
    """All lines, in the order of the file."""
    return [*_memory(machine), *_log(machine), *_parallelism(machine), *_planner(machine), *_connections(machine)]


def configuration(machine: Machine) -> str:
    """The text of the file, a comment on each line."""
    found = settings(machine)
    width = max(len(f"{it.name} = {it.value}") for it in found)
    head = (
        f"# For a server with {_size(machine.memory)} of memory, {machine.processors} processors, "
        f"{machine.disk.value} and {machine.connections} connections.\n"
    )
    return head + "".join(f"{f'{it.name} = {it.value}':<{width}}  # {it.meaning}\n" for it in found)


def _memory(machine: Machine) -> list[Setting]:
    shared = machine.memory // 4
    each = (machine.memory - shared) // (machine.connections * _SORTS_AT_ONCE * (1 + _helpers(machine)))
    work = min(max(each, 256 * _KIB), 256 * _MIB)
    maintenance = min(max(machine.memory // 16, 16 * _MIB), 2 * _GIB)
    return [
        Setting("shared_buffers", _size(shared), "pages that the server caches itself: a quarter of the memory"),
        Setting(
            "effective_cache_size",
            _size(machine.memory * 3 // 4),
            "what the planner takes to be cached, by the system too; nothing is allocated",
        ),
        Setting(
            "work_mem", _size(work), "of each sort or hash table, before it goes to disk; one query may have several"
        ),
        Setting("maintenance_work_mem", _size(maintenance), "of each VACUUM and CREATE INDEX"),
    ]


def _log(machine: Machine) -> list[Setting]:
    largest = 8 * _GIB if machine.memory >= 8 * _GIB else 2 * _GIB
    return [
        Setting("wal_buffers", "16MB", "of the write-ahead log (WAL) in memory, before it is written"),
        Setting("min_wal_size", _size(largest // 4), "of WAL files that are kept for reuse"),
        Setting("max_wal_size", _size(largest), "of WAL after which a checkpoint is made early; takes so much disk"),
        Setting(
            "checkpoint_timeout", "15min", "between checkpoints; longer writes fewer full pages, and recovers slower"
        ),
        Setting("checkpoint_completion_target", "0.9", "share of that time over which a checkpoint spreads its writes"),
        Setting("wal_compression", "on", "compresses full pages in the WAL: less to write, some CPU"),
        Setting("synchronous_commit", "on", "a commit outlives a crash: sidecars delete what was acknowledged"),
    ]


def _parallelism(machine: Machine) -> list[Setting]:
    jobs = _JOBS if machine.timescaledb else 0
    found = [
        Setting(
            "max_worker_processes",
            str(machine.processors + 3 + jobs),
            "background processes of all kinds, those below among them",
        ),
        Setting(
            "max_parallel_workers", str(machine.processors), "of them for parallel queries: one for each processor"
        ),
        Setting("max_parallel_workers_per_gather", str(_helpers(machine)), "that help one query"),
        Setting("max_parallel_maintenance_workers", str(_helpers(machine)), "that help one CREATE INDEX or VACUUM"),
    ]
    if machine.timescaledb:
        found += [
            Setting(
                "shared_preload_libraries", "'timescaledb'", "loads TimescaleDB; add to those that are there already"
            ),
            Setting("timescaledb.max_background_workers", str(jobs), "for compression, retention and hourly counts"),
        ]
    return found


def _planner(machine: Machine) -> list[Setting]:
    solid = machine.disk is Disk.SSD
    return [
        Setting("random_page_cost", "1.1" if solid else "4", "of a page out of order, where one in order costs 1"),
        Setting("effective_io_concurrency", "200" if solid else "2", "reads that the disk does well at the same time"),
        Setting("maintenance_io_concurrency", "200" if solid else "10", "the same for maintenance"),
    ]


def _connections(machine: Machine) -> list[Setting]:
    return [
        Setting(
            "max_connections",
            str(machine.connections),
            "at most; a writer takes three and database.pool_size plus database.max_overflow",
        ),
        Setting("max_locks_per_transaction", "256", "a query over all days locks each day's table and its indexes"),
    ]


def _helpers(machine: Machine) -> int:
    """Processes beside its own that one query gets."""
    return min(machine.processors // 2, 4)


def _size(value: int) -> str:
    """As PostgreSQL reads it, rounded down to the unit."""
    for unit, name in ((_GIB, "GB"), (_MIB, "MB")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{name}"
    return f"{value // _MIB}MB" if value >= 16 * _MIB else f"{value // _KIB}kB"
