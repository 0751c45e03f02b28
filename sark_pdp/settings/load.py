"""Reads settings from their sources, the later winning: defaults, a YAML file, the environment, flags."""

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import sark_pdp
from sark_pdp.addresses import TcpAddress, UnixAddress
from sark_pdp.errors import SettingsError
from sark_pdp.model import Seconds
from sark_pdp.settings.checks import check
from sark_pdp.settings.keys import Key, S, all_keys, build
from sark_pdp.settings.kinds import UnusableValueError
from sark_pdp.settings.schema import BundleSettings, Settings

DEFAULT = "default"
"""The origin of what nobody set."""

_PREFIX = "SARK_PDP_"

_SERVICE_LINK = re.compile(r"(.*_)?SERVICE_(HOST|PORT(_.*)?)|(.*_)?PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
"""What Kubernetes sets in each pod for each service of its namespace; a service may well be called `sark-pdp`."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared with, not listened on)


class Loaded(Struct, frozen=True):
    """The effective settings and where each came from."""

    settings: Settings
    values: Mapping[str, Any]
    """The same by key."""
    origins: Mapping[str, str]
    """By key: `default`, `file:FILE`, `env NAME` or `flag`."""


class _Source(Struct, frozen=True):
    """One value that somebody set."""

    value: Any
    origin: str


def load(config: Path | None, overrides: Sequence[str], environ: Mapping[str, str] = os.environ) -> Loaded:
    """The settings from the file `config`, the variables `environ` and flags `overrides` (`KEY=VALUE`).

    Raises SettingsError: one line that names the key, the value, where it came from and what is expected.
    """
    keys = all_keys()
    given = _given(keys, config, overrides, environ)
    values = _values(keys, given)
    _derive(values, given, environ)
    origins = _origins(keys, given)
    settings = build(Settings, values)
    check(settings, origins)
    return Loaded(settings, values, origins)


def load_as(
    schema: type[S],
    check_all: Callable[[S, Mapping[str, str]], None],
    config: Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str] = os.environ,
) -> S:
    """The settings of a process with keys of its own, none of which has a derived default.

    `check_all` gets them with the origin of each key, and raises SettingsError for what no single key shows.
    """
    keys = all_keys(schema)
    given = _given(keys, config, overrides, environ)
    settings = build(schema, _values(keys, given))
    check_all(settings, _origins(keys, given))
    return settings


def variables_of(config: Path) -> dict[str, str]:
    """The settings of a sidecar in a file, as variables of its environment, each by its key.

    Raises SettingsError for what no sidecar could use; whether files are there only the sidecar can say.
    """
    keys = all_keys()
    shown = {name: keys[name].kind.show(source.value) for name, source in _from_file(config, keys).items()}
    return {name: _text(value) for name, value in shown.items()}


def _text(value: Any) -> str:
    """As the environment has it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _given(
    keys: Mapping[str, Key], config: Path | None, overrides: Sequence[str], environ: Mapping[str, str]
) -> dict[str, _Source]:
    """What somebody set; the later source wins."""
    from_file = {} if config is None else _from_file(config, keys)
    return from_file | _from_environment(environ, keys) | _from_flags(overrides, keys)


def _values(keys: Mapping[str, Key], given: Mapping[str, _Source]) -> dict[str, Any]:
    return {name: given[name].value if name in given else key.default for name, key in keys.items()}


def _origins(keys: Mapping[str, Key], given: Mapping[str, _Source]) -> dict[str, str]:
    return {name: given[name].origin if name in given else DEFAULT for name in keys}


def _from_file(config: Path, keys: Mapping[str, Key]) -> dict[str, _Source]:
    from sark_pdp.settings.yaml_file import read_yaml

    origin = f"file:{config}"
    return {name: _source(keys[name], raw, origin) for name, raw in _flatten(read_yaml(config), "", origin, keys)}


def _flatten(
    section: Mapping[Any, Any], prefix: str, origin: str, keys: Mapping[str, Key]
) -> Iterator[tuple[str, Any]]:
    """The leaves of a file's tree by their dotted keys."""
    for part, raw in section.items():
        name = f"{prefix}{part}"
        if name in keys:
            yield name, raw
        elif not _is_section(name, keys):
            raise _unknown(name, origin, keys)
        elif isinstance(raw, dict):
            yield from _flatten(raw, f"{name}.", origin, keys)
        elif raw is not None:
            raise SettingsError(f"{name}: {_quote(raw)} ({origin}) is no section; expected a mapping of its keys")


def _from_environment(environ: Mapping[str, str], keys: Mapping[str, Key]) -> dict[str, _Source]:
    by_variable = {key.variable: key for key in keys.values()}
    given = {}
    for variable in sorted(environ):
        if variable in by_variable:
            key = by_variable[variable]
            given[key.name] = _source_of_text(key, environ[variable], f"env {variable}")
        elif variable.startswith(_PREFIX) and not _SERVICE_LINK.fullmatch(variable.removeprefix(_PREFIX)):
            nearest = _nearest(variable, by_variable)
            raise SettingsError(f"{variable}: no setting has this environment variable{nearest}")
    return given


def _from_flags(overrides: Sequence[str], keys: Mapping[str, Key]) -> dict[str, _Source]:
    given = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(f"--set {_quote(override)}: expected KEY=VALUE, as in cache.l1.size=5000")
        if name not in keys:
            raise _unknown(name, "flag", keys)
        given[name] = _source_of_text(keys[name], text, "flag")
    return given


def _source(key: Key, raw: Any, origin: str) -> _Source:
    try:
        return _Source(key.kind.read(raw), origin)
    except UnusableValueError as error:
        raise _unusable(key, error, origin) from None


def _source_of_text(key: Key, text: str, origin: str) -> _Source:
    try:
        return _Source(key.kind.read_text(text), origin)
    except UnusableValueError as error:
        raise _unusable(key, error, origin) from None


def _derive(values: dict[str, Any], given: Mapping[str, _Source], environ: Mapping[str, str]) -> None:
    """Fills in the defaults that depend on the machine or on other settings."""
    if "state_dir" not in given:
        values["state_dir"] = _state_dir(environ)
    state_dir: Path = values["state_dir"]
    run_dir = state_dir / "run"
    # A state folder of its own tells two processes of one user apart, so it holds the socket too.
    if "state_dir" not in given and environ.get("XDG_RUNTIME_DIR"):
        run_dir = Path(environ["XDG_RUNTIME_DIR"]) / "sark-pdp"
    listening = next(iter(values["listen.grpc"]), None)
    if isinstance(listening, TcpAddress):
        listening = TcpAddress(_EVERYWHERE.get(listening.host, listening.host), listening.port)
    derived = {
        "listen.admin": UnixAddress(run_dir / "admin.sock"),
        "policy.bundles": (BundleSettings(name="default", path=default_bundle(), poll_interval=Seconds(0.0)),),
        "audit.spool_dir": state_dir / "audit",
        "audit.source_name": socket.gethostname(),
        "address": listening,
    }
    values.update((name, value) for name, value in derived.items() if name not in given)


def default_bundle() -> Path:
    """The bundle that is packed with this program."""
    return Path(sark_pdp.__path__[0]) / "engine" / "default_bundle.tar.gz"


def _state_dir(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "sark-pdp"
    # A container that runs as an arbitrary user has no home, or the root folder.
    if environ.get("HOME", "/") in {"", "/"}:
        return Path("/var/lib/sark-pdp")
    return Path(environ["HOME"]) / ".local" / "state" / "sark-pdp"


def _is_section(name: str, keys: Mapping[str, Key]) -> bool:
    return any(key.startswith(f"{name}.") for key in keys)


def _unusable(key: Key, error: UnusableValueError, origin: str) -> SettingsError:
    return SettingsError(
        f"{key.name}{error.at}: {_quote(error.value)} ({origin}) {error.problem}; expected {error.expected}"
    )


def _unknown(name: str, origin: str, keys: Mapping[str, Key]) -> SettingsError:
    if _is_section(name, keys):
        return SettingsError(f"{name}: is a section ({origin}); set one of its keys")
    return SettingsError(f"{name}: there is no such setting ({origin}){_nearest(name, keys)}")


def _nearest(name: str, known: Mapping[str, Key]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else "; `sark-pdp config` lists them"


def _quote(value: Any) -> str:
    """On one line, and not longer than a line."""
    shown = repr(value)
    return shown if len(shown) <= 120 else f"{shown[:120]}…"
