"""The settings of `sark-pdp audit-writer`. Keys that a sidecar has too are called the same and mean the same."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from sark_pdp.addresses import Address, TcpAddress
from sark_pdp.errors import SettingsError
from sark_pdp.model import Seconds
from sark_pdp.settings.schema import LogSettings, ShutdownSettings, TlsSettings
from sark_pdp.settings.units import Bytes

_DAY = 86_400


class WriterListenSettings(Struct, frozen=True, kw_only=True):
    """Where the writer listens."""

    grpc: Annotated[tuple[Address, ...], Meta(description="Events, questions and health: one address or a list.")] = (
        TcpAddress("127.0.0.1", 9010),
    )
    metrics: Annotated[TcpAddress, Meta(description="`/metrics`, `/healthz` and `/readyz`, over plain HTTP.")] = (
        TcpAddress("127.0.0.1", 9012)
    )
    insecure: Annotated[bool, Meta(description="Allows `listen.grpc` outside loopback without TLS.")] = False


class DatabaseSettings(Struct, frozen=True, kw_only=True):
    """The store."""

    dsn: Annotated[str | None, Meta(description="Connection string of PostgreSQL, without a password.")] = None
    password_file: Annotated[Path | None, Meta(description="Its password.")] = None
    query_dsn: Annotated[
        str | None, Meta(description="The same database as a role that may only read; without it, `database.dsn`.")
    ] = None
    query_password_file: Annotated[Path | None, Meta(description="The password of `database.query_dsn`.")] = None
    pool_size: Annotated[int, Meta(description="Connections for questions.", ge=1, le=1000)] = 20
    max_overflow: Annotated[int, Meta(description="Connections above these, while they are needed.", ge=0, le=1000)] = (
        10
    )


class BatchSettings(Struct, frozen=True, kw_only=True):
    """What is committed together."""

    max_events: Annotated[int, Meta(description="Events of a batch.", ge=1, le=100_000)] = 2000
    max_delay: Annotated[Seconds, Meta(description="How long the first event waits for others.", gt=0, le=10)] = (
        Seconds(0.05)
    )
    max_bytes: Annotated[
        Bytes, Meta(description="Memory of events that are not committed; past it streams are not read.", ge=2**20)
    ] = Bytes(2**26)


class QuerySettings(Struct, frozen=True, kw_only=True):
    """Who may ask."""

    allowed_sans: Annotated[
        tuple[str, ...],
        Meta(description="Subject alternative names of clients that may ask, where clients have certificates."),
    ] = ()


class WriterSettings(Struct, frozen=True, kw_only=True):
    """Every setting of the writer, with its effective value."""

    listen: WriterListenSettings = WriterListenSettings()
    database: DatabaseSettings = DatabaseSettings()
    batch: BatchSettings = BatchSettings()
    retention: Annotated[Seconds, Meta(description="How long events are kept.", ge=_DAY, le=36_500 * _DAY)] = Seconds(
        90.0 * _DAY
    )
    compress_after: Annotated[
        Seconds, Meta(description="When they are compressed, which only TimescaleDB does.", ge=_DAY)
    ] = Seconds(7.0 * _DAY)
    query: QuerySettings = QuerySettings()
    tls: TlsSettings = TlsSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    log: LogSettings = LogSettings()


def check_writer(settings: WriterSettings, origins: Mapping[str, str]) -> None:
    """Raises SettingsError for the first thing that is wrong."""
    if settings.database.dsn is None:
        raise SettingsError("database.dsn: is not set; name the database that events are written to")
    _check_files(settings, origins)
    _check_tls(settings)
    _check_listeners(settings, origins)


def _check_files(settings: WriterSettings, origins: Mapping[str, str]) -> None:
    tls, database = settings.tls, settings.database
    files = {
        "tls.cert_file": tls.cert_file,
        "tls.key_file": tls.key_file,
        "tls.client_ca_file": tls.client_ca_file,
        "database.password_file": database.password_file,
        "database.query_password_file": database.query_password_file,
    }
    for key, file in files.items():
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            raise SettingsError(
                f"{key}: '{file}' ({origins[key]}) cannot be read; expected a file that this process may read"
            )


def _check_tls(settings: WriterSettings) -> None:
    tls = settings.tls
    if (tls.cert_file is None) != (tls.key_file is None):
        raise SettingsError("tls.cert_file and tls.key_file: one of them is not set; set both or none")
    if tls.client_ca_file is not None and tls.cert_file is None:
        raise SettingsError("tls.client_ca_file: is of no use alone; set tls.cert_file too")
    for key, names in (("tls.allowed_sans", tls.allowed_sans), ("query.allowed_sans", settings.query.allowed_sans)):
        if names and tls.client_ca_file is None:
            raise SettingsError(f"{key}: is of no use alone; set tls.client_ca_file too")


def _check_listeners(settings: WriterSettings, origins: Mapping[str, str]) -> None:
    if not settings.listen.grpc:
        raise SettingsError("listen.grpc: is empty; expected at least one address")
    for address in settings.listen.grpc:
        exposed = isinstance(address, TcpAddress) and not address.loopback
        if exposed and not (settings.tls.cert_file or settings.listen.insecure):
            raise SettingsError(
                f"listen.grpc: '{address}' ({origins['listen.grpc']}) is reached from other machines; set tls.cert_file"
                " and tls.key_file, or listen.insecure to true"
            )
