"""`sark-pdp bundle`: makes, shows and checks policy bundles."""

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sark_pdp.cli.bundle_supply import diff, serve, sign
from sark_pdp.cli.options import settings_options
from sark_pdp.settings import Loaded

if TYPE_CHECKING:
    from sark_pdp.engine.bundle import Bundle
    from sark_pdp.projection import Path as JsonPath

_FILE = click.Path(path_type=Path)
_NARROWEST = 40
"""Columns; a terminal that has fewer wraps for itself."""


_with_key = click.option(
    "--key",
    type=_FILE,
    metavar="FILE",
    help="What it must be signed with: a public key or certificate in PEM, a secret, or OPA's `keys` as JSON. "
    "Default: it must not be signed.",
)


@click.group()
def bundle() -> None:
    """Make, show and check policy bundles.

    A bundle is what `opa build -t wasm` makes: compiled policies and their data in one file. `bundle build` adds what
    each entrypoint reads, so that answers are cached by those fields alone. Where a bundle is asked for, a folder with
    the files of one does, too.
    """


for _command in (sign, diff, serve):
    bundle.add_command(_command)


@bundle.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp bundle build policies --output bundle.tar.gz\n"
    "  sark-pdp bundle build policies --entrypoint sark/mcp/decision --output bundle.tar.gz --revision v42\n"
    "\b\n"
    "Get OPA, if you have no `opa`:\n"
    "  go install github.com/open-policy-agent/opa@v1.22.2"
)
@click.argument("folder", type=_FILE, metavar="DIR")
@click.option(
    "--entrypoint",
    "-e",
    "entrypoints",
    multiple=True,
    metavar="PATH",
    help="A rule to ask for decisions, as in sark/mcp/decision. Repeatable. "
    "Default: the rules with `# entrypoint: true` in their metadata.",
)
@click.option("--output", "-o", required=True, type=_FILE, metavar="FILE", help="The bundle to write.")
@click.option("--revision", metavar="TEXT", help="What to call it. Default: a digest of the sources.")
@click.option(
    "--opa", envvar="OPA", default="opa", metavar="FILE", help="OPA's executable. Default: $OPA, or opa in PATH."
)
def build(folder: Path, entrypoints: tuple[str, ...], output: Path, revision: str | None, opa: str) -> None:
    """Check, test and compile the Rego policies of DIR.

    DIR holds *.rego (with *_test.rego beside them) and data.json or data.yaml files, whose folders are their place
    below `data`. Data stays data: it can be replaced without compiling again. The same sources make the same bytes.
    """
    from sark_pdp.engine.build import build_bundle
    from sark_pdp.engine.opa import Opa, OpaError

    def report(line: str) -> None:
        click.echo(line, err=True)

    try:
        built = build_bundle(folder, output, opa=Opa(opa), entrypoints=entrypoints, revision=revision, report=report)
    except OpaError as error:
        report(error.output)
        raise
    _print(output, built)


@bundle.command(
    epilog="\b\nExamples:\n  sark-pdp bundle inspect bundle.tar.gz\n  sark-pdp bundle inspect bundle.tar.gz --json"
)
@click.argument("file", type=_FILE)
@_with_key
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, with each path that an entrypoint reads as a list of keys."
)
def inspect(file: Path, key: Path | None, *, as_json: bool) -> None:
    """Show the entrypoints of FILE and what they read.

    "everything" means that each field counts for the cache: the bundle was made without `bundle build`, or a rule
    uses the whole of `input`. Where a module calls a built-in that reads the clock, or anything else that is not in
    its arguments, its entrypoints are evaluated each time, unless their result says `cache_ttl`.
    """
    seen = _read(file, key)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(_described(file, seen)), indent=2).decode())
    else:
        _print(file, seen)


@bundle.command(
    epilog="\b\nExample:\n"
    "  sark-pdp bundle verify bundle.tar.gz && cp bundle.tar.gz /etc/sark-pdp/\n"
    "\b\n"
    "Exit codes: 0 this decision point runs it, 1 problems were found, 2 it cannot be read, or its signature is wrong."
)
@click.argument("file", type=_FILE)
@_with_key
@settings_options
def verify(loaded: Loaded, file: Path, key: Path | None) -> None:
    """Check that this decision point can run FILE.

    Reads all of it, verifies its signature, compares each module with the digest that its recorded reads were made for,
    compiles and instantiates it within limits.wasm_memory, looks for the built-ins that it wants, and evaluates each
    entrypoint once on an empty input.
    """
    from sark_pdp.engine.verify import problems

    seen = _read(file, key)
    found = problems(seen, loaded.settings.limits.wasm_memory)
    for problem in found:
        click.echo(f"{file}: {problem}", err=True)
    if found:
        sys.exit(1)
    entrypoints = sum(len(module.entrypoints) for module in seen.modules)
    click.echo(f"{file}: revision {seen.name} is sound; {entrypoints} entrypoints, {len(seen.modules)} modules")


def _read(file: Path, key: Path | None) -> "Bundle":
    from sark_pdp.engine.bundle import read_bundle
    from sark_pdp.engine.signatures import read_keys

    return read_bundle(file, keys=None if key is None else read_keys(key))


def _described(file: Path, seen: "Bundle") -> dict[str, Any]:
    from sark_pdp.engine.verify import host_needs

    modules: list[dict[str, Any]] = []
    for module in seen.modules:
        needs = host_needs(str(file), module)
        modules.append({
            "path": module.path,
            "sha256": module.digest,
            "size": len(module.wasm),
            "builtins": needs.builtins,
            "nondeterministic": needs.nondeterministic,
            "entrypoints": [
                {"name": entry.name, "reads_input": entry.reads_input, "reads_data": entry.reads_data}
                for entry in module.entrypoints
            ],
        })  # fmt: skip
    return {
        "revision": seen.revision,
        "digest": seen.digest,
        "size": seen.size,
        "roots": seen.roots,
        "data": sorted(seen.data),
        "modules": modules,
    }


def _print(file: Path, seen: "Bundle") -> None:
    described = _described(file, seen)
    facts = [
        ("bundle", f"{file}, {_kib(seen.size)}"),
        ("revision", seen.revision or "none: its digest is used"),
        ("digest", seen.digest),
        ("data", ", ".join(described["data"]) or "none"),
    ]
    for module in described["modules"]:
        unsteady = ", ".join(module["nondeterministic"])
        facts += [
            ("", ""),
            ("module", f"{module['path']}, {_kib(module['size'])}"),
            ("cached", f"no, unless the result says cache_ttl: it calls {unsteady}" if unsteady else "yes"),
            ("built-ins", ", ".join(module["builtins"]) or "none of the host"),
        ]
        for entry in module["entrypoints"]:
            facts += [
                ("entrypoint", entry["name"]),
                ("  input", _paths(entry["reads_input"])),
                ("  data", _paths(entry["reads_data"])),
            ]
    # What reads a pipe wants each fact on one line.
    width = max(shutil.get_terminal_size().columns, _NARROWEST) if sys.stdout.isatty() else sys.maxsize
    for name, value in facts:
        lines = textwrap.wrap(value, width - 12, break_on_hyphens=False)
        click.echo(click.style(f"{name:<12}", bold=True) + f"\n{' ' * 12}".join(lines) if name else "")


def _paths(paths: tuple["JsonPath", ...]) -> str:
    if not paths:
        return "nothing"
    return ", ".join(".".join(path) for path in paths) if () not in paths else "everything"


def _kib(size: int) -> str:
    return f"{size / 1024:.1f} KiB"
