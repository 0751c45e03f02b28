"""The reference in docs/ and the JSON schema say what the code does."""

from pathlib import Path
from typing import Any

import yaml

from sark_pdp.settings import load
from sark_pdp.settings.describe import json_schema, markdown, shown_values
from sark_pdp.settings.keys import all_keys

REFERENCE = Path(__file__).parents[2] / "docs" / "settings.md"


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """The properties of a schema by their dotted keys."""
    found: dict[str, dict[str, Any]] = {}
    for name, inner in node["properties"].items():
        if inner["type"] == "object":
            found |= leaves(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = inner
    return found


def test_the_reference_is_what_the_command_prints() -> None:
    assert REFERENCE.read_text() == markdown(), "run: sark-pdp config --docs > docs/settings.md"


def test_the_reference_names_every_key() -> None:
    assert [key for key in all_keys() if f"- **`{key}`**: " not in markdown()] == []


def test_the_schema_has_every_key_with_what_it_means() -> None:
    described = leaves(json_schema())
    assert set(described) == set(all_keys())
    assert [key for key, leaf in described.items() if not leaf["description"]] == []


def test_a_default_of_the_schema_is_what_a_file_may_hold() -> None:
    described = leaves(json_schema())
    for name, key in all_keys().items():
        if "default" in described[name]:
            assert key.kind.read(described[name]["default"]) == key.default


def test_what_is_shown_is_a_settings_file_that_means_the_same(tmp_path: Path) -> None:
    environ = {"HOME": "/home/eve"}
    masks = 'audit.mask=[{"path": "/input/**/a~1b"}, {"path": "/reason", "operation": "truncate", "length": 2}]'
    shown = load(None, ["cache.l1.ttl=250ms", 'listen.grpc=["[::1]:1", "unix:///run/x"]', masks], environ)
    tree: dict[str, Any] = {}
    for key, value in shown_values(shown).items():
        # The packed bundle need not have been built where this runs.
        if key == "policy.bundles":
            continue
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert load(file, [], environ).settings == shown.settings
