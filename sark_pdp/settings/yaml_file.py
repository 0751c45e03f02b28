"""Reads a YAML file of settings, as YAML 1.2 has it where 1.1 surprises: `0660` stays what was written."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sark_pdp.errors import SettingsError


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; takes only plain decimal numbers for integers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (overrides)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 0660 as octal and 1:30 as sexagesimal: both would reach the settings as another number.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(?:0|[1-9][0-9]*)$"), list("-0123456789"))


def read_yaml(file: Path) -> dict[Any, Any]:
    """The mapping that the file holds, empty for an empty file; raises SettingsError, which names file and line."""
    try:
        loader = _Loader(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise SettingsError(f"--config {file}: is not a text in UTF-8") from None
    try:
        tree = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else "the file"
        raise SettingsError(f"--config {file}: {line} is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise SettingsError(f"--config {file}: is not YAML that can be read") from None
    finally:
        loader.dispose()
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(
            f"--config {file}: holds no mapping of settings; expected lines as in `log: {{level: info}}`"
        )
    return tree
