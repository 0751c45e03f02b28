"""`sark-pdp audit-writer`: takes the events of all sidecars into the database."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sark_pdp.cli.options import source_options
from sark_pdp.errors import SettingsError
from sark_pdp.observability import logging
from sark_pdp.settings import load_as

if TYPE_CHECKING:
    from sark_pdp.audit_writer.server import Options, Writer
    from sark_pdp.certificates import Files
    from sark_pdp.settings.audit_writer import WriterSettings


@click.command(
    "audit-writer",
    epilog="\b\nExamples:\n"
    "  sark-pdp db migrate --dsn postgresql://owner@db/audit\n"
    "  sark-pdp audit-writer --config audit-writer.yaml\n"
    "  sark-pdp audit-writer --set database.dsn=postgresql://writer@db/audit",
)
@source_options
def audit_writer(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Take the events of all sidecars into the database, until told to stop.

    Serves AuditIngest, AuditQuery and health on listen.grpc, metrics and probes on listen.metrics. Any number may run.
    SIGTERM or SIGINT: what was read is committed and acknowledged within shutdown.grace, exit code 0. Logs go to
    standard error. See docs/audit-writer.md for the settings.
    """
    from sark_pdp.settings.audit_writer import WriterSettings, check_writer

    settings = load_as(WriterSettings, check_writer, config, overrides)
    os.umask(0o077)
    logging.configure(settings.log.level, settings.log.format, sys.stderr)
    # gRPC's own log has another form. Read as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio.run(_serve(_options(settings)))
    # A database that stands still has its threads, which an ordinary exit would wait for.
    sys.stdout.flush()
    os._exit(0)


async def _serve(options: "Options") -> None:
    from sark_pdp.audit_writer.server import serve

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(options, _greet, stop)


def _greet(writer: "Writer") -> None:
    for key, addresses in sorted(writer.listening.items()):
        click.echo(f"{key:<15} {', '.join(map(str, addresses))}")
    sys.stdout.flush()


def _options(settings: "WriterSettings") -> "Options":
    from sark_pdp.audit_writer.server import Options
    from sark_pdp.postgres.connections import with_password

    database = settings.database
    _check_dsn("dsn", "password_file", database.dsn)
    _check_dsn("query_dsn", "query_password_file", database.query_dsn)
    dsn = with_password(database.dsn or "", database.password_file)
    query_dsn = dsn if database.query_dsn is None else with_password(database.query_dsn, database.query_password_file)
    return Options(
        listen=settings.listen.grpc,
        metrics=settings.listen.metrics,
        dsn=dsn,
        query_dsn=query_dsn,
        pool_size=database.pool_size,
        max_overflow=database.max_overflow,
        max_events=settings.batch.max_events,
        max_delay=settings.batch.max_delay,
        max_bytes=settings.batch.max_bytes,
        retention=settings.retention,
        compress_after=settings.compress_after,
        grace=settings.shutdown.grace,
        tls=_tls(settings),
        allowed_sans=settings.tls.allowed_sans,
        query_sans=settings.query.allowed_sans,
    )


def _check_dsn(key: str, file_key: str, dsn: str | None) -> None:
    from sark_pdp.postgres.connections import holds_secret

    try:
        secret = holds_secret(dsn or "")
    except SettingsError as error:
        raise SettingsError(f"database.{key}: {error}") from None
    if secret:
        raise SettingsError(
            f"database.{key}: has a password in it, which others would see; write it to a file, and name that in "
            f"database.{file_key}"
        )


def _tls(settings: "WriterSettings") -> "Files | None":
    from sark_pdp.certificates import Files

    tls = settings.tls
    if tls.cert_file is None or tls.key_file is None:
        return None
    return Files(tls.cert_file, tls.key_file, tls.client_ca_file)
