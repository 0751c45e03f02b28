"""The command line: what `config` prints, and what every command does with settings and errors."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sark_pdp import cli
from sark_pdp.cli.options import settings_options
from sark_pdp.errors import StartError
from sark_pdp.settings import Loaded

ENVIRONMENT = {"HOME": "/home/eve", "XDG_STATE_HOME": None, "XDG_RUNTIME_DIR": None}


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    result = CliRunner().invoke(cli.main, arguments, env=ENVIRONMENT | environ)
    return result.exit_code, result.stdout, result.stderr


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from sark_pdp.cli import main; main()", *arguments], capture_output=True, text=True
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sark-pdp.yaml"
    file.write_text("cache: {l1: {size: 7}}")
    return file


def test_the_table_names_value_and_origin_of_each_setting(config: Path) -> None:
    code, out, err = run("config", "--config", str(config), "--set", "cache.l1.ttl=1s", SARK_PDP_LIMITS__MAX_DEPTH="5")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert [cell.strip() for cell in rows["cache.l1.size"]] == ["7", f"file:{config}"]
    assert [cell.strip() for cell in rows["cache.l1.ttl"]] == ["1s", "flag"]
    assert [cell.strip() for cell in rows["limits.max_depth"]] == ["5", "env SARK_PDP_LIMITS__MAX_DEPTH"]
    assert [cell.strip() for cell in rows["shutdown.grace"]] == ["10s", "default"]


def test_json_has_the_same(config: Path) -> None:
    code, out, _ = run("config", "--json", "--config", str(config))
    assert code == 0
    shown = json.loads(out)
    assert shown["cache.l1.size"] == {"value": 7, "origin": f"file:{config}"}
    assert shown["limits.wasm_memory"] == {"value": "64MiB", "origin": "default"}


def test_the_schema_needs_no_usable_settings() -> None:
    code, out, _ = run("config", "--schema", SARK_PDP_CACHE__L1__SIZE="many")
    assert code == 0
    assert json.loads(out)["properties"]["cache"]["additionalProperties"] is False


BAD = [
    (("--set", "cache.l1.ttl=10"), "sark-pdp: cache.l1.ttl: '10' (flag) is not a length of time; "),
    (("--config", "/no/such.yaml"), "sark-pdp: --config /no/such.yaml: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD)
def test_settings_that_cannot_be_used_are_one_line_and_exit_code_2(arguments: tuple[str, ...], line: str) -> None:
    code, out, err = run("config", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


@click.command()
@settings_options
@click.option("--loud", is_flag=True)
def probe(loaded: Loaded, *, loud: bool) -> None:
    click.echo(f"{loaded.settings.cache.l1.size} {loud}")


def test_a_command_gets_the_effective_settings_and_its_own_options() -> None:
    result = CliRunner().invoke(probe, ["--set", "cache.l1.size=9", "--loud"], env=ENVIRONMENT)
    assert (result.exit_code, result.stdout) == (0, "9 True\n")


ENDINGS = [
    (StartError("the bundle\n is  broken"), 2, "sark-pdp: the bundle is broken\n"),
    (KeyboardInterrupt(), 130, ""),
    (BrokenPipeError(32, "Broken pipe"), 1, ""),
]


@pytest.mark.parametrize(("error", "code", "err"), ENDINGS)
def test_what_ends_a_command_is_told_in_one_line_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, err: str
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr("sark_pdp.cli.config.config", failing)
    assert run("config") == (code, "", err)


def test_the_help_lists_every_command_and_shows_examples() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert [name for name in cli.COMMANDS if f"\n  {name} " not in out] == []
    assert "Examples:" in out


def test_an_unknown_command_is_a_usage_error() -> None:
    code, _, err = run("sevre")
    assert code == 2
    assert "sevre" in err


def leaves(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """The words of each command that does something."""
    found: list[tuple[str, ...]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += leaves(command, *path, name) if isinstance(command, click.Group) else [(*path, name)]
    return found


def test_every_listed_command_exists_and_has_help_with_examples() -> None:
    helps = {words: run(*words, "--help") for words in leaves(cli.main)}
    assert {words[0] for words in helps} == set(cli.COMMANDS)
    assert [words for words, (code, out, _) in helps.items() if code != 0 or "Example" not in out] == []


def test_the_version_is_told() -> None:
    assert program("--version").stdout.startswith("sark-pdp ")


def test_one_command_does_not_pay_for_the_imports_of_another() -> None:
    script = (
        "import sys\n"
        "from sark_pdp.cli import main\n"
        "main(['config', '--schema'], standalone_mode=False)\n"
        "heavy = {'rich', 'grpc', 'wasmtime', 'yaml', 'prometheus_client'}\n"
        "print(*heavy.intersection(sys.modules), file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr.strip() == ""
