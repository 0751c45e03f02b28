"""Writes the table of values in the chart's README.md from values.yaml: `python charts/values_table.py`.

A value's text is what stands above it, from `# -- ` on.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parent / "sark-pdp"
_BEGIN, _END = "<!-- values -->", "<!-- end of values -->"
_KEY = re.compile(r"( *)([A-Za-z]+):(.*)")


class Value(NamedTuple):
    """One line of the table."""

    path: str
    default: str
    text: str


def values(source: str) -> Iterator[Value]:
    """In the order of the file; a value without a text has an empty one."""
    everything = yaml.safe_load(source)
    levels: list[str] = []
    text: list[str] = []
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            text = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and text:
            text.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            levels = [*levels[: len(match[1]) // 2], match[2]]
            if text or match[3].strip():
                yield Value(".".join(levels), _default(everything, levels), " ".join(text))
            text = []


def table(source: str) -> str:
    """Markdown."""
    lines = ["| value | default | |", "|---|---|---|"]
    lines += (f"| `{value.path}` | `{value.default}` | {value.text} |" for value in values(source))
    return "\n".join(lines)


def with_table(readme: str, source: str) -> str:
    """The same text with the table of these values."""
    before, _, rest = readme.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n{table(source)}\n{_END}{after}"


def _default(everything: Any, levels: list[str]) -> str:
    for level in levels:
        everything = everything[level]
    return json.dumps(everything, ensure_ascii=False)


if __name__ == "__main__":
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))
