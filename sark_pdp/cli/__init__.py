"""The command line: one module per sub-command, imported when it is called."""

import os
import sys
from importlib import import_module
from typing import Any

import click

from sark_pdp.errors import SarkError

COMMANDS = {
    "serve": "Answer over gRPC until told to stop.",
    "check": "Ask a running process for one decision.",
    "ready": "Ask whether a process here serves.",
    "status": "Show what a running process does, and what is wrong.",
    "bundle": "Build, inspect, verify, sign, compare and serve policy bundles.",
    "audit": "Read, verify and export the audit trail.",
    "cache": "Have what is cached decided and read anew.",
    "audit-writer": "Take the events of all sidecars into the database.",
    "publisher": "Tell every sidecar what changed in the registry.",
    "injector": "Add the sidecar to pods as they are created.",
    "certificates": "Keep certificates of the injector and the audit writer valid, in a Kubernetes cluster.",
    "db": "Make and fill the schema of a database, and size its server.",
    "config": "Show the effective settings and where each came from.",
}
"""What each module `sark_pdp.cli.NAME` holds (with `_` for `-`), told here so that the help need not import it."""

EXIT_ERROR = 2
_EXIT_INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""
_EXIT_PIPE = 141
"""The same of SIGPIPE."""


class Failure(click.ClickException):
    """A SarkError as the person at the terminal sees it."""

    exit_code = EXIT_ERROR

    def show(self, file: Any = None) -> None:
        click.echo(f"sark-pdp: {' '.join(self.message.split())}", file=file or sys.stderr)


class _Commands(click.Group):
    """Finds a sub-command by importing its module, so that none pays for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"sark_pdp.cli.{module}"), module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SarkError as error:
            raise Failure(str(error)) from error
        except BrokenPipeError:
            # Whoever reads has enough: that is no denial and no difference. What is still to be written goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_EXIT_PIPE)
        except OSError as error:
            raise Failure(f"{error.filename or 'standard output'}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            ctx.exit(_EXIT_INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n"
    "  sark-pdp serve                                     the packed default policies on 127.0.0.1:9001\n"
    "  sark-pdp serve --config sark-pdp.yaml --set cache.l1.size=5000\n"
    "  sark-pdp check --input request.json                exit code 0: allowed, 1: denied, 2: error\n"
    "  sark-pdp status\n"
    "  sark-pdp config",
)
@click.version_option(package_name="sark-pdp", prog_name="sark-pdp", message="%(prog)s %(version)s")
def main() -> None:
    """A policy decision point that runs beside each workload."""
