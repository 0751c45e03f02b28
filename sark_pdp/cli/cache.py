"""`sark-pdp cache`: what a running process keeps, and forgetting it."""

import json
from collections.abc import Iterator

import click

from sark_pdp._proto.admin_pb2 import InvalidateRequest, InvalidateResponse
from sark_pdp.cli.administration import administer
from sark_pdp.cli.options import settings_options
from sark_pdp.settings import Loaded

_SHARED = "every process that shares the cache decides it anew"
_ALONE = (
    "the process that was asked decides it anew; no other one heard of it: it has no shared cache, or cannot reach it "
    "now and tells it later"
)


@click.group()
def cache() -> None:
    """Have what is cached decided and read anew."""


@cache.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp cache invalidate --user ada\n"
    "  sark-pdp cache invalidate --server crm --tool-name query\n"
    "  sark-pdp cache invalidate --tool 17 --server crm --tool-name query\n"
    "  sark-pdp cache invalidate --data-root catalog/tools\n"
    "\b\n"
    "Exit codes: 0 done, 2 it could not be asked. Without Redis it is done in that process alone."
)
@click.option("--user", multiple=True, metavar="ID", help="A user. Repeatable.")
@click.option("--server", multiple=True, metavar="ID", help="A server with its tools. Repeatable.")
@click.option("--tool", multiple=True, metavar="ID", help="A tool by its id. Repeatable.")
@click.option("--tool-name", metavar="NAME", help="With one --server: not the server, but this tool of it.")
@click.option("--policy", multiple=True, metavar="ENTRYPOINT", help="All answers of an entrypoint. Repeatable.")
@click.option("--data-root", multiple=True, metavar="PATH", help="All answers that read data there. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a sentence.")
@settings_options
def invalidate(
    loaded: Loaded,
    *,
    user: tuple[str, ...],
    server: tuple[str, ...],
    tool: tuple[str, ...],
    tool_name: str | None,
    policy: tuple[str, ...],
    data_root: tuple[str, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Have decisions and attributes made anew from now on.

    Asks the process on listen.admin of the same settings; where it has a Redis, all that share it hear of it within
    moments. What is not about these stays. A tool has two names, its id and its name on its server: policies may
    read either, so give all three of --tool, --server and --tool-name where you know them.
    """
    if tool_name is not None and len(server) != 1:
        raise click.UsageError("--tool-name is the name of a tool of one --server")
    named = {"user_id": user, "server_id": server, "tool_id": tool, "policy": policy, "data_root": data_root}
    requests = [*_requests(named, tool_name), *([InvalidateRequest(all=True)] if everything else [])]
    if not requests:
        raise click.UsageError("say what: --user, --server, --tool, --policy, --data-root or --all")
    answers = [administer(loaded.settings, "Invalidate", request, InvalidateResponse) for request in requests]
    shared = all(answer.shared for answer in answers)
    click.echo(json.dumps({"shared": shared}) if as_json else f"done: {_SHARED if shared else _ALONE}")


def _requests(named: dict[str, tuple[str, ...]], tool_name: str | None) -> Iterator[InvalidateRequest]:
    for field, values in named.items():
        for value in values:
            request = InvalidateRequest(tool_name=tool_name if field == "server_id" else None)
            setattr(request, field, value)
            yield request
