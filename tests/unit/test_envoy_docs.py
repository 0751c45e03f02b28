"""The tables about Envoy name tests that there are."""

import re

import pytest

from tests.fix_tools import ROOT

PAGE = (ROOT / "docs" / "envoy.md").read_text()
README = (ROOT / "README.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_row_of_the_page_names_a_test(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text()


def test_each_row_about_a_field_or_mode_names_one() -> None:
    """But for what there is not."""
    tables = PAGE.partition("## Fields and modes")[2]
    rows = [row for row in tables.splitlines() if row.startswith("| ") and "| test |" not in row]
    assert len(rows) > 40
    assert [row for row in rows if "`tests/" not in row and "| no: " not in row] == []


def test_the_table_of_the_readme_names_files() -> None:
    table = README.partition("| ext_authz | opa-envoy-plugin |")[2].partition("\n\n")[0]
    files = re.findall(r"`([\w/]+\.py)` \|$", table, re.MULTILINE)
    assert len(files) == len(table.strip().splitlines()) - 2
    assert [file for file in files if not (ROOT / "tests" / file).is_file()] == []
