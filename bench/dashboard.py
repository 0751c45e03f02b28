"""The picture of the dashboard, from what Prometheus answers about processes that really run, and have real troubles.

    python -m bench.dashboard [--seconds 240] [--answers FILE] [--again]

Two sidecars with Redis, registry, HTTP and traces, an audit writer and a publisher, on a PostgreSQL of this run, are
asked by `bench.mixed_load`, on cores that are kept awake. Meanwhile a bundle is replaced, roles are changed, the writer
is away, a bundle is damaged, and Redis stands still. Then every expression of the dashboard is asked for that time, and
drawn in the look of Grafana.

`--answers` keeps what Prometheus said; with `--again` that file is drawn, and nothing is run. Exits with 1 where a
panel has nothing to show, or calls failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from msgspec import Struct

from bench.awake import Awake
from bench.collector import collector
from bench.machine import ROOT, free_port, running, wait_ready
from bench.mixed_load import Place, Registry, Sent, mixed_load
from bench.panels import Panel, Span, read_dashboard
from bench.picture import Event, draw, save
from bench.postgres_server import postgres_server
from bench.prometheus_server import PrometheusServer, prometheus_server
from bench.redis_server import RedisServer, redis_server
from bench.servers import is_ready, serving
from sark_pdp.engine.archive import pack_archive, read_archive
from sark_pdp.settings import default_bundle

DASHBOARD: Final = ROOT / "charts" / "sark-pdp" / "dashboards" / "sark-pdp.json"
VARIABLES: Final = {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "10s"}
"""As when nothing is chosen. Grafana's own interval would be 15 s for the usual scrapes, four times one."""

_PICTURE: Final = ROOT / "docs" / "dashboard.png"
_TITLE: Final = "SARK PDP"
_CORES: Final = "0,1"
_PODS: Final = ("orders-0", "search-0")
_RATE: Final = 150.0
"""Calls a second to each sidecar."""
_SIZES: Final = {"servers": 100, "tools": 400, "users": 30}
_TOOLS: Final = """
SELECT tools.id FROM sark_registry.tools JOIN sark_registry.servers ON servers.id = tools.server_id
ORDER BY tools.active AND servers.status = 'active' AND servers.visibility <> 'private'
    AND coalesce(tools.sensitivity_level, 'low') IN ('low', 'medium') AND servers.sensitivity_level IN ('low', 'medium')
    DESC, tools.id
LIMIT 20"""
"""Most of what is asked for is there, and is for many."""
_FAILURES: Final = """
SELECT details->>'reason', count(*) FROM audit_events
WHERE event_type = 'authorization_denied' AND severity = 'high' GROUP BY 1"""
_CHANGED: Final = 8
"""Users who get another role."""
_FROZEN: Final = 5.0
_WARM_UP: Final = 15.0
"""Seconds; of the latter nothing is shown."""
_MOST_BUNDLE: Final = 1 << 26


class Recorded(Struct, frozen=True):
    """All that the picture is drawn from."""

    span: Span
    events: list[Event]
    answers: dict[str, list[dict[str, Any]]]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="of load [240]")
    parser.add_argument("--output", type=Path, default=_PICTURE, metavar="FILE", help="[docs/dashboard.png]")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="keep what Prometheus answered")
    parser.add_argument("--again", action="store_true", help="draw that file, and run nothing")
    options = parser.parse_args()
    if options.again:
        recorded = msgspec.json.decode(options.answers.read_bytes(), type=Recorded)
    else:
        recorded, sent = _record(options.seconds)
        if options.answers:
            options.answers.write_bytes(msgspec.json.encode(recorded))
        print(f"{sent.calls:,} calls, {sent.failed} failed, {sent.held_back} not sent")
        if sent.failed:
            raise SystemExit("calls failed: nothing is drawn")
    parts = read_dashboard(json.loads(DASHBOARD.read_text()), VARIABLES)
    try:
        figure = draw(parts, recorded.answers, recorded.span, _TITLE, recorded.events)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    save(figure, options.output, parts)
    print(f"{options.output}: {options.output.stat().st_size / 1024:.0f} KiB")


class _Stage(Struct):
    """What runs, for those who disturb it."""

    bundle: Path
    redis: RedisServer
    trail: str
    registry: str
    """Connection strings."""
    start_writer: Callable[[], None]
    stop_writer: Callable[[], None]


def _record(seconds: float) -> tuple[Recorded, Sent]:
    with tempfile.TemporaryDirectory(prefix="sark-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        stage, places, targets = _start(folder, stack)
        server = stack.enter_context(prometheus_server(folder, targets, _CORES))
        stack.enter_context(Awake())
        registry = _rows(stage)
        with mixed_load(places, registry, seconds) as sent:
            time.sleep(_WARM_UP)
            begin = time.time()
            events = list(_disturbed(stage, seconds))
        step = max(1.0, seconds / 300)
        span = Span(float(int(begin)), step, int(seconds / step))
        _print_failures(stage.trail)
        return Recorded(span, events, _asked(server, span)), sent


def _print_failures(trail: str) -> None:
    """Why evaluations failed, for whoever wonders at the picture."""
    with psycopg.connect(trail) as connection:
        for reason, number in connection.execute(_FAILURES):
            print(f"an error {number} times: {reason}")


def _asked(server: PrometheusServer, span: Span) -> dict[str, list[dict[str, Any]]]:
    panels = [part for part in read_dashboard(json.loads(DASHBOARD.read_text()), VARIABLES) if isinstance(part, Panel)]
    expressions = {target.expression for panel in panels for target in panel.targets}
    return {expression: server.query_range(expression, span) for expression in sorted(expressions)}


def _start(folder: Path, stack: ExitStack) -> tuple[_Stage, list[Place], dict[str, str]]:
    """With the addresses of sidecars, and of everyone's metrics by pod."""
    trail, registry = _databases(stack)
    redis = stack.enter_context(redis_server(folder))
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    targets = {"audit-writer-0": metrics, "publisher-0": f"127.0.0.1:{free_port()}"}
    writing = stack.enter_context(ExitStack())

    def start_writer() -> None:
        given = {"database.dsn": trail, "listen.grpc": address, "listen.metrics": metrics}
        writing.enter_context(_central(folder, "audit-writer", given, metrics))

    start_writer()
    shared = {"attributes.postgres_dsn": registry, "cache.l2.url": redis.url}
    told = {**shared, "listen.metrics": targets["publisher-0"]}
    stack.enter_context(_central(folder, "publisher", told, targets["publisher-0"]))
    stage = _Stage(folder / "bundle.tar.gz", redis, trail, registry, start_writer, writing.close)
    _deliver(stage.bundle, "v1")
    (folder / "mac").write_text("0" * 64)
    settings = {
        **shared,
        "cache.l1.ttl": "1m",
        "cache.l1.size": "5000",
        "cache.l2.mac_key_file": f"{folder}/mac",
        "audit.writer": address,
        "policy.bundles": json.dumps([{"name": "default", "path": str(stage.bundle)}]),
        "tracing.otlp_endpoint": stack.enter_context(collector()),
        "tracing.sample_ratio": "0.1",
    }
    places = []
    for pod in _PODS:
        (folder / pod).mkdir()
        http = f"127.0.0.1:{free_port()}"
        own = {**settings, "audit.source_name": pod, "listen.http": http}
        served = stack.enter_context(serving(folder / pod, own, _CORES))
        places.append(Place(served.grpc, http, _RATE))
        targets[pod] = served.metrics
    return stage, places, targets


def _databases(stack: ExitStack) -> tuple[str, str]:
    """Connection strings of the audit trail's and the registry's, on a server of their own."""
    trail = stack.enter_context(postgres_server()).dsn
    registry = trail.replace("dbname=postgres", "dbname=registry")
    with psycopg.connect(trail, autocommit=True) as connection:
        connection.execute("CREATE DATABASE registry")
    _command("db", "migrate", "--dsn", trail)
    _command("db", "migrate", "--registry", "--dsn", registry)
    _command("db", "seed", "--dsn", registry, *(f"--{name}={number}" for name, number in _SIZES.items()))
    return trail, registry


def _disturbed(stage: _Stage, seconds: float) -> Iterator[Event]:
    """What happens meanwhile, each at its share of the time."""
    acts: tuple[tuple[float, str, Callable[[], None]], ...] = (
        (0.14, "bundle v2 delivered", lambda: _deliver(stage.bundle, "v2")),
        (0.27, f"roles of {_CHANGED} users changed", lambda: _change(stage)),
        (0.38, "audit writer stopped", stage.stop_writer),
        (0.60, "audit writer started", stage.start_writer),
        (0.70, "damaged bundle delivered", lambda: _damage(stage.bundle)),
        (0.79, "bundle v3 delivered", lambda: _deliver(stage.bundle, "v3")),
        (0.87, f"Redis stands still for {_FROZEN:g} s", lambda: _freeze(stage.redis)),
    )
    begin = time.monotonic()
    for share, what, act in acts:
        time.sleep(max(0.0, begin + share * seconds - time.monotonic()))
        yield Event(time.time(), what)
        act()
    time.sleep(max(0.0, begin + seconds - time.monotonic()))


def _deliver(place: Path, revision: str) -> None:
    """The default policies, under another revision."""
    files, _ = read_archive(default_bundle(), _MOST_BUNDLE)
    content: dict[str, bytes | memoryview] = dict(files)
    manifest = json.loads(bytes(content[".manifest"]))
    manifest["revision"] = revision
    content[".manifest"] = json.dumps(manifest).encode()
    _replace(place, pack_archive(content, level=1))


def _damage(place: Path) -> None:
    _replace(place, place.read_bytes()[:-2000])


def _replace(place: Path, content: bytes) -> None:
    part = place.with_suffix(".part")
    part.write_bytes(content)
    part.replace(place)


def _change(stage: _Stage) -> None:
    """One at a time, as people do it."""
    with psycopg.connect(stage.registry, autocommit=True) as connection:
        rows = connection.execute("SELECT id FROM sark_registry.users ORDER BY id LIMIT %s", (_CHANGED,)).fetchall()
        for user in rows:
            connection.execute("UPDATE sark_registry.users SET role = 'viewer', roles = '{viewer}' WHERE id = %s", user)
            time.sleep(0.1)


def _freeze(redis: RedisServer) -> None:
    redis.freeze()
    time.sleep(_FROZEN)
    redis.thaw()


def _rows(stage: _Stage) -> Registry:
    with psycopg.connect(stage.registry) as connection:
        users = connection.execute("SELECT id FROM sark_registry.users ORDER BY active DESC, id").fetchall()
        tools = connection.execute(_TOOLS).fetchall()
    return Registry([user for (user,) in users], [tool for (tool,) in tools])


@contextmanager
def _central(folder: Path, command: str, settings: Mapping[str, str], metrics: str) -> Iterator[None]:
    """`sark-pdp audit-writer` or `publisher`."""
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    output = folder / f"{command}.log"
    with running((_program(), command, *arguments), _CORES, output) as process:
        wait_ready(process, lambda: is_ready(f"http://{metrics}/readyz"), output)
        yield


def _command(*arguments: str) -> None:
    subprocess.run([_program(), *arguments], check=True, capture_output=True)


def _program() -> Path:
    return Path(sys.executable).with_name("sark-pdp")


if __name__ == "__main__":
    main()
