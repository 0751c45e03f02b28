"""The options of the `sark-pdp audit` commands: where to read, and which events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from sark_pdp.audit.filtered import DECISIONS
from sark_pdp.audit.search import Selection
from sark_pdp.cli.options import source_options
from sark_pdp.errors import SettingsError

if TYPE_CHECKING:
    from sark_pdp.cli.audit_trails import Trail
    from sark_pdp.settings import AuditSettings

_OF_SETTINGS = ""
"""`--writer` without an address."""


class SpoolPlace(Struct, frozen=True):
    """A spool of this machine."""

    directory: Path
    key_file: Path | None = None
    """The chain key of the settings, where the spool is theirs too."""

    @contextmanager
    def opened(self) -> Iterator["Trail"]:
        """Raises AuditError where there is none."""
        from sark_pdp.cli.audit_trails import SpoolTrail

        trail = SpoolTrail(self.directory)
        try:
            yield trail
        finally:
            trail.close()


class WriterPlace(Struct, frozen=True):
    """Audit writers, as the settings name them."""

    settings: "AuditSettings"

    @contextmanager
    def opened(self) -> Iterator["Trail"]:
        """Connects when the first question is asked. Raises StartError for certificates of no use."""
        from sark_pdp.audit.uplink import WriterTls
        from sark_pdp.cli.audit_asking import Asking
        from sark_pdp.cli.audit_stored import WriterTrail

        tls = self.settings.tls
        files = None if tls.ca_file is None else WriterTls(tls.ca_file, tls.cert_file, tls.key_file, tls.server_name)
        trail = WriterTrail(Asking([str(address) for address in self.settings.writer], files))
        try:
            yield trail
        finally:
            trail.close()


def spool_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--spool`, `--config` and `--set`; the command gets a SpoolPlace as its first argument."""

    @wraps(function)
    def with_spool(*args: Any, spool: Path | None, config: Path | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        return function(_spool(spool, config, overrides), *args, **rest)

    return _spool_option(source_options(with_spool))


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds these and `--writer` with its TLS; the command gets a SpoolPlace or a WriterPlace as its first argument."""

    @wraps(function)
    def with_place(*args: Any, spool: Path | None, config: Path | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        writer: str | None = rest.pop("writer")
        tls = {name: rest.pop(name) for name in ("ca_file", "cert_file", "key_file", "server_name")}
        given = [name for name, value in tls.items() if value is not None]
        if writer is None and given:
            raise click.UsageError(f"--{given[0].replace('_', '-')} is about --writer, which is not given")
        if writer is not None and spool is not None:
            raise click.UsageError("--spool and --writer are two places; give one of them")
        if writer is None:
            return function(_spool(spool, config, overrides), *args, **rest)
        named = [f"audit.tls.{name}={tls[name]}" for name in given]
        addresses = [] if writer == _OF_SETTINGS else [f"audit.writer={writer}"]
        return function(_writer(config, (*overrides, *addresses, *named)), *args, **rest)

    with_options = source_options(with_place)
    for option in reversed(
        (
            click.option(
                "--writer",
                is_flag=False,
                flag_value=_OF_SETTINGS,
                metavar="[HOST:PORT]",
                help="Ask this audit writer, which has the events of all sidecars; without an address: audit.writer of"
                " the settings.",
            ),
            click.option("--ca-file", metavar="FILE", help="Who signs the writer's certificate: audit.tls.ca_file."),
            click.option("--cert-file", metavar="FILE", help="Your certificate: audit.tls.cert_file."),
            click.option("--key-file", metavar="FILE", help="Its key: audit.tls.key_file."),
            click.option(
                "--server-name", metavar="NAME", help="The name in the writer's certificate: audit.tls.server_name."
            ),
        )
    ):
        with_options = option(with_options)
    return _spool_option(with_options)


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the filters; the command gets a Selection."""

    @wraps(function)
    def with_selection(*args: Any, since: str | None, until: str | None, **rest: Any) -> Any:
        fields = {name: rest.pop(name) for name in ("user", "tool", "server", "decision", "event_type", "source")}
        if since is not None and until is not None and since >= until:
            raise click.UsageError(f"--since ({since}) is not before --until ({until})")
        return function(*args, selection=Selection(**fields, since=since, until=until), **rest)

    for option in reversed(
        (
            click.option("--user", metavar="ID", help="Only of this user id; in a spool of this email address, too."),
            click.option("--tool", metavar="NAME", help="Only about this tool."),
            click.option("--server", metavar="ID", help="Only about this server."),
            click.option("--decision", type=click.Choice(list(DECISIONS.values())), help="Only with this outcome."),
            click.option("--type", "event_type", metavar="TYPE", help="Only of this type: authorization_denied, …"),
            click.option("--source", metavar="NAME", help="Only of this process: its name and boot, as in `--json`."),
            click.option("--since", callback=_point, metavar="TIME", help="Not before: RFC 3339, or 15m, 2h, 7d ago."),
            click.option("--until", callback=_point, metavar="TIME", help="Before: the same forms."),
        )
    ):
        with_selection = option(with_selection)
    return with_selection


def _point(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A point in time as events write it."""
    from sark_pdp.settings.units import parse_duration

    if value is None:
        return None
    try:
        point = datetime.now(UTC) - timedelta(seconds=parse_duration(value))
    except (ValueError, OverflowError):
        try:
            given = datetime.fromisoformat(value)
            point = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(
                f"{value!r} is neither RFC 3339, as in 2026-01-31T12:00:00Z, nor a length of time, as in 15m"
            ) from error
    return point.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _spool_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--spool",
        type=click.Path(path_type=Path, file_okay=False, readable=False),
        metavar="DIR",
        help="The spool directory. Default: audit.spool_dir of the settings.",
    )(function)


def _spool(directory: Path | None, config: Path | None, overrides: tuple[str, ...]) -> SpoolPlace:
    from sark_pdp.settings import load

    if directory is not None:
        return SpoolPlace(directory)
    settings = load(config, overrides).settings.audit
    return SpoolPlace(settings.spool_dir, settings.chain_key_file)


def _writer(config: Path | None, overrides: tuple[str, ...]) -> WriterPlace:
    from sark_pdp.settings import load

    settings = load(config, overrides).settings.audit
    if not settings.writer:
        raise SettingsError("--writer: audit.writer names no writer; give an address, as in --writer 127.0.0.1:9010")
    return WriterPlace(settings)
