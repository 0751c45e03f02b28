"""`sark-pdp db`: makes and fills the schema of a database, and sizes its server."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from sark_pdp.errors import SettingsError

if TYPE_CHECKING:
    from sark_pdp.attributes.registry.seed import Report
    from sark_pdp.postgres.migrations import Migration

P = ParamSpec("P")
R = TypeVar("R")

_DSN_VARIABLE = "SARK_DB_DSN"
_EXISTING = "public"


def dsn_options(function: Callable[Concatenate[str, P], R]) -> Callable[..., R]:
    """Adds `--dsn` and `--dsn-file`; the command gets the connection string as its first argument."""

    @wraps(function)
    def with_dsn(*args: Any, dsn: str | None, dsn_file: Path | None, **kwargs: Any) -> R:
        return function(named_dsn(dsn, dsn_file), *args, **kwargs)

    with_file = click.option(
        "--dsn-file", type=click.Path(path_type=Path), metavar="FILE", help="A file that holds it, with a password."
    )(with_dsn)
    return click.option(
        "--dsn",
        envvar=_DSN_VARIABLE,
        metavar="DSN",
        help=f"The database: postgresql://USER@HOST/DATABASE. Without a password; default: ${_DSN_VARIABLE}, which may "
        "have one. libpq's own variables and files count too (PGPASSFILE, PGSERVICE).",
    )(with_file)


def named_dsn(given: str | None, file: Path | None) -> str:
    """The connection string of `--dsn` or `--dsn-file`; raises SettingsError, for a password that was typed too."""
    from sark_pdp.postgres.connections import holds_secret, read_dsn_file

    if file is not None:
        return read_dsn_file(file)
    if given is None:
        raise SettingsError(f"no database is named: give --dsn or --dsn-file, or set {_DSN_VARIABLE}")
    context = click.get_current_context()
    typed = context.get_parameter_source("dsn") is click.core.ParameterSource.COMMANDLINE
    if typed and holds_secret(given):
        raise SettingsError(
            "--dsn holds a password, which everybody on this machine can read in the list of processes: "
            f"put it into the file of --dsn-file, into ${_DSN_VARIABLE} or into PGPASSFILE"
        )
    return given


@click.group()
def db() -> None:
    """Make and fill the schema of a database in PostgreSQL, and size its server."""


@db.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp db migrate --registry --dsn postgresql://admin@db/sark\n"
    "  sark-pdp db migrate --dsn postgresql://owner@db/audit\n"
    "  sark-pdp db migrate --registry --dsn-file /run/secrets/dsn --dry-run | less"
)
@click.option(
    "--registry", is_flag=True, help="Users, servers and tools, as sidecars read them. Without it: the audit trail."
)
@click.option(
    "--existing-schema",
    show_default=_EXISTING,
    metavar="NAME",
    help="Where a registry that another program keeps is looked for: tables users, mcp_servers and mcp_tools.",
)
@click.option(
    "--triggers",
    is_flag=True,
    help="Put triggers on the tables of such a registry, for the publisher to hear of changes.",
)
@click.option("--dry-run", is_flag=True, help="Print the SQL that would be applied, and apply nothing.")
@dsn_options
def migrate(dsn: str, *, registry: bool, existing_schema: str | None, triggers: bool, dry_run: bool) -> None:
    """Bring the schema up to date: of the audit trail, or, with --registry, of what sidecars read about principals.

    The audit trail gets a hypertable where the server offers TimescaleDB, else partitions by day. The registry gets
    tables and views, or, where another program's tables are, the views alone.

    Tables of another program are never changed, unless --triggers asks for triggers on them. A second run has nothing
    to do. Two that run at the same time take turns.
    """
    from sark_pdp.postgres import migrations
    from sark_pdp.postgres.connections import connect

    with connect(dsn, "sark-pdp db migrate") as connection:
        steps = _registry(connection, existing_schema, triggers=triggers) if registry else _trail(connection)
        if dry_run:
            click.echo(migrations.script(migrations.pending(connection, steps)), nl=False)
            return
        applied = 0
        for done in migrations.migrate(connection, steps):
            applied += not done.skipped
            click.echo(f"left out: {done.skipped}" if done.skipped else f"applied {done.migration.title}", err=True)
        click.echo("the schema is up to date" if applied else "nothing to do", err=True)


def _registry(connection: Any, existing_schema: str | None, *, triggers: bool) -> "list[Migration]":
    from sark_pdp.attributes.registry.schema import plan

    todo = plan(connection, existing_schema or _EXISTING, triggers=triggers)
    if existing_schema is not None and todo.over is None:
        raise SettingsError(
            f"--existing-schema {existing_schema}: there are no tables mcp_servers and mcp_tools, or the database has "
            "tables of this program's own already, in schema sark_registry"
        )
    if todo.over is not None:
        click.echo(f"reading the tables that are there: {', '.join(todo.over.tables)}", err=True)
    return list(todo.migrations)


def _trail(connection: Any) -> "list[Migration]":
    from sark_pdp.audit_writer.schema import form_to_migrate, migrations

    return migrations(form_to_migrate(connection))


@db.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp db seed --dsn postgresql://admin@db/sark\n"
    "  sark-pdp db seed --dsn-file /run/secrets/dsn --servers 100 --tools 1000 --users 500 --replace"
)
@click.option("--servers", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True)
@click.option("--tools", type=click.IntRange(0, 10_000_000), default=100_000, show_default=True)
@click.option("--users", type=click.IntRange(0, 10_000_000), default=50_000, show_default=True)
@click.option("--seed", "number", type=int, default=1, show_default=True, help="Which rows: the same number, the same.")
@click.option("--replace", is_flag=True, help="Delete all rows of the registry first.")
@dsn_options
def seed(dsn: str, *, servers: int, tools: int, users: int, number: int, replace: bool) -> None:
    """Fill the registry's own tables with sample rows.

    Tables that hold rows are refused without --replace. Either all rows are there afterwards, or it is as before.
    """
    from sark_pdp.attributes.registry import seed as registry
    from sark_pdp.postgres.connections import connect

    sizes = registry.Sizes(servers=servers, tools=tools, users=users)
    with connect(dsn, "sark-pdp db seed") as connection:
        show = _bars() if sys.stderr.isatty() else _lines
        show(lambda report: registry.seed(connection, sizes, number, replace=replace, report=report))


def _lines(run: "Callable[[Report], None]") -> None:
    def report(table: str, done: int, total: int) -> None:
        if done == total:
            click.echo(f"{table}: {total:,} rows", err=True)

    run(report)


def _bars() -> "Callable[[Callable[[Report], None]], None]":
    from rich.console import Console
    from rich.progress import Progress

    def show(run: "Callable[[Report], None]") -> None:
        with Progress(console=Console(stderr=True)) as progress:
            tasks: dict[str, Any] = {}

            def report(table: str, done: int, total: int) -> None:
                if table not in tasks:
                    tasks[table] = progress.add_task(table, total=total)
                progress.update(tasks[table], completed=done)

            run(report)

    return show


def _memory(_: click.Context, __: click.Parameter, value: str | None) -> int:
    """In bytes."""
    from sark_pdp.postgres.tuning import LEAST_MEMORY
    from sark_pdp.settings.units import parse_size

    if value is None:
        return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), LEAST_MEMORY)
    try:
        size = int(parse_size(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}; expected one as in 16GiB") from error
    if size < LEAST_MEMORY:
        raise click.BadParameter(f"{value} is too little: at least {LEAST_MEMORY >> 20}MiB are needed")
    return size


@db.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp db tune > audit.conf                               for a server on this machine\n"
    "  sark-pdp db tune --memory 64GiB --processors 16 --disk ssd --timescaledb --connections 200"
)
@click.option("--memory", metavar="SIZE", callback=_memory, help="That the server may use, as in 16GiB. Default: all.")
@click.option("--processors", type=click.IntRange(1, 4096), metavar="N", help="Default: those of this machine.")
@click.option("--disk", type=click.Choice(["ssd", "hdd"]), default="ssd", show_default=True, help="Under the data.")
@click.option("--connections", type=click.IntRange(10, 10_000), default=100, show_default=True, help="At most.")
@click.option("--timescaledb", is_flag=True, help="The server has TimescaleDB: load it, and give it workers.")
def tune(*, memory: int, processors: int | None, disk: str, connections: int, timescaledb: bool) -> None:
    """Print a postgresql.conf for the audit trail, with what each value means.

    Asks no server. Put the file into the server's conf.d, or include it at the end of its postgresql.conf, and restart.
    """
    from sark_pdp.postgres.tuning import Disk, Machine, configuration

    machine = Machine(memory, processors or os.cpu_count() or 1, Disk(disk), connections, timescaledb)
    click.echo(configuration(machine), nl=False)
