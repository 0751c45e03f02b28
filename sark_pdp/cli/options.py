"""The options that every command with settings has: `--config FILE` and `--set KEY=VALUE`."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from sark_pdp.settings import Loaded, load

P = ParamSpec("P")
R = TypeVar("R")


def source_options(function: Callable[P, R]) -> Callable[P, R]:
    """Adds the options; the command gets `config: Path | None` and `overrides: tuple[str, ...]`, to pass to `load`."""
    with_set = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one setting, as in cache.l1.size=5000. Lists are JSON. Repeatable.",
    )(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help="Settings, YAML. See docs/settings.md.",
    )(with_set)


def settings_options(function: Callable[Concatenate[Loaded, P], R]) -> Callable[..., R]:
    """Adds the options; the command gets the effective settings as its first argument.

    Settings that cannot be used end the command as each SarkError does: in one line, with exit code 2.
    """

    @wraps(function)
    def with_settings(*args: Any, config: Path | None, overrides: tuple[str, ...], **kwargs: Any) -> R:
        return function(load(config, overrides), *args, **kwargs)

    return source_options(with_settings)
