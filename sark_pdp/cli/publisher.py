"""`sark-pdp publisher`: tells every sidecar what changed in the registry."""

import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sark_pdp.cli import signals
from sark_pdp.cli.options import source_options
from sark_pdp.errors import SettingsError
from sark_pdp.model import Seconds
from sark_pdp.observability import logging
from sark_pdp.settings import load_as

if TYPE_CHECKING:
    from sark_pdp.publisher.listening import Listening
    from sark_pdp.settings.publisher import PublisherRegistrySettings, PublisherSettings

_REDIS_TIMEOUT: Final = Seconds(1.0)
"""Nobody waits for an invalidation as a request would."""
_GRACE: Final = Seconds(5.0)
_NOT_READ: Final = Seconds(0.0)
"""How long a generation is used here that was read: none is."""


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp publisher --config publisher.yaml\n"
    "  sark-pdp publisher --set attributes.postgres_dsn=postgresql://sark@db/sark --set cache.l2.url=redis://redis:6379"
)
@source_options
def publisher(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Tell every sidecar what changed in the registry, until told to stop.

    Listens to the triggers of `sark-pdp db migrate --registry` in PostgreSQL and invalidates in Redis exactly the user,
    tool or server that changed. Several may run. SIGTERM or SIGINT: what was heard is still told, exit code 0. Logs go
    to standard error. See docs/publisher.md for the settings.
    """
    from sark_pdp.settings.publisher import PublisherSettings, check_publisher

    settings = load_as(PublisherSettings, check_publisher, config, overrides)
    _check_dsn(settings.attributes)
    logging.configure(settings.log.level, settings.log.format, sys.stderr)
    signals.hold(signals.END)
    with ExitStack() as running:
        _start(settings, running)
        signal.sigwait(signals.END)


def _start(settings: "PublisherSettings", running: ExitStack) -> None:
    """Puts the parts together; what is left in `running` ends them. Raises StartError."""
    from sark_pdp.cache.redis_connection import RedisServer
    from sark_pdp.cache.redis_generations import RedisGenerations
    from sark_pdp.cache.redis_link import RedisLink
    from sark_pdp.observability.http import ProbeListener
    from sark_pdp.publisher.metrics import PublisherMetrics
    from sark_pdp.publisher.publisher import Publisher

    redis = settings.cache.l2
    server = RedisServer(
        redis.url or "",
        redis.username_file,
        redis.password_file,
        redis.ca_file,
        redis.client_cert_file,
        redis.client_key_file,
    )
    link = RedisLink(server, _REDIS_TIMEOUT)
    generations = RedisGenerations(link, redis.prefix, _NOT_READ)

    def invalidate(subjects: Sequence[str]) -> bool:
        shared = generations.invalidate(subjects)
        if shared:
            # Those that Redis did not take at the time.
            generations.deliver()
        return shared

    metrics = PublisherMetrics()
    publisher = Publisher(lambda: _listen(settings.attributes), invalidate, metrics)
    probes = ProbeListener(settings.listen.metrics, metrics.registry(), lambda: publisher.problem)
    probes.start()
    running.callback(probes.close)
    link.start()
    running.callback(link.close)
    publisher.start()
    running.callback(publisher.close, _GRACE)


def _listen(registry: "PublisherRegistrySettings") -> "Listening":
    """Raises SarkError."""
    from sark_pdp.postgres.connections import with_password
    from sark_pdp.publisher.listening import Listening

    return Listening(with_password(registry.postgres_dsn or "", registry.postgres_password_file))


def _check_dsn(registry: "PublisherRegistrySettings") -> None:
    from sark_pdp.postgres.connections import holds_secret

    try:
        secret = holds_secret(registry.postgres_dsn or "")
    except SettingsError as error:
        raise SettingsError(f"attributes.postgres_dsn: {error}") from None
    if secret:
        raise SettingsError(
            "attributes.postgres_dsn: has a password in it, which others would see; write it to a file, and name that "
            "in attributes.postgres_password_file"
        )
