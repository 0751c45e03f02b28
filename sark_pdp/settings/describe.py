"""What there is to set, for people and for editors: values as shown, the reference in Markdown, the JSON schema."""

from collections.abc import Mapping
from typing import Any

from sark_pdp.settings.keys import Key, all_keys
from sark_pdp.settings.load import Loaded

_INTRODUCTION = """\
# Settings

This page is what `sark-pdp config --docs` prints. `sark-pdp config` shows the effective values and where each came
from, `sark-pdp config --schema` the JSON schema of a settings file.

Four sources, the later wins:

1. the defaults below;
2. the YAML file of `--config FILE`, where `cache.l1.size` is `cache: {l1: {size: 5000}}`;
3. the environment, where it is `SARK_PDP_CACHE__L1__SIZE=5000`: the key in capitals, `__` between its levels;
4. flags, where it is `--set cache.l1.size=5000`.

In the environment and in flags a list is JSON, as in `["127.0.0.1:9001", "unix:///run/pdp.sock"]`. A duration is a
number with `ms`, `s`, `m`, `h` or `d`; a size is a number of bytes, or one with `KiB`, `MiB` or `GiB`. A relative path
starts at the working folder of the process. Secrets are given as files, never as values.

What cannot be used stops the start with one line that names it: an unknown key or variable, a wrong unit, a missing
file. Variables that Kubernetes sets for a service called `sark-pdp` (`SARK_PDP_SERVICE_HOST`, `SARK_PDP_PORT` and the
like) are passed over.

Outside loopback `listen.grpc` and `listen.http` need `tls.cert_file` and `tls.key_file`, or `listen.insecure`;
`listen.admin` over TCP needs `tls.client_ca_file` too.
"""


def shown_values(loaded: Loaded) -> Mapping[str, Any]:
    """The effective value of each key, as JSON that a settings file may hold."""
    return {name: key.kind.show(loaded.values[name]) for name, key in all_keys().items()}


def markdown() -> str:
    """The reference of every key."""
    parts = [_INTRODUCTION]
    section: str | None = None
    for key in sorted(all_keys().values(), key=lambda key: "." in key.name):
        if (head := key.name.rpartition(".")[0]) != section:
            section = head
            parts.append(f"\n## {f'`{head}`' if head else 'Common'}\n\n")
        parts.append(
            f"- **`{key.name}`**: {key.description}  \n  Expects {key.kind.expected}. Default: {_default_text(key)}.\n"
        )
    return "".join(parts)


def json_schema() -> dict[str, Any]:
    """Of a settings file, JSON Schema 2020-12."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "SARK PDP settings",
        **_section(),
    }
    for key in all_keys().values():
        *sections, leaf = key.name.split(".")
        node = root
        for name in sections:
            node = node["properties"].setdefault(name, _section())
        node["properties"][leaf] = _leaf(key)
    return root


def _section() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _leaf(key: Key) -> dict[str, Any]:
    described = f"{key.description} Expects {key.kind.expected}."
    if key.derived:
        return key.kind.schema | {"description": f"{described} Default: {key.derived}."}
    return key.kind.schema | {"description": described, "default": key.kind.show(key.default)}


def _default_text(key: Key) -> str:
    if key.derived:
        return key.derived
    shown = key.kind.show(key.default)
    if shown in (None, []):
        return "none"
    if isinstance(shown, list):
        shown = ", ".join(shown)
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
