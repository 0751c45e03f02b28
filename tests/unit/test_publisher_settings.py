"""The settings of `sark-pdp publisher`: what it cannot do without, and what is refused before anything is connected."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from sark_pdp.cli import main
from sark_pdp.settings.keys import all_keys
from sark_pdp.settings.publisher import PublisherSettings

DSN, REDIS = "attributes.postgres_dsn=host=db", "cache.l2.url=redis://redis:6379"
REFUSED = {
    (): "attributes.postgres_dsn: is not set; name the registry",
    (DSN,): "cache.l2.url: is not set; name the Redis",
    (DSN, "cache.l2.url=redis://:hunter2@redis"): "cache.l2.url: '***' (flag) has a user or a password in it",
    (DSN, "cache.l2.url=redis://redis?password=hunter2"): "cache.l2.url: '***' (flag) has a query or a fragment",
    (DSN, REDIS, "cache.l2.password_file=/nonexistent"): "cache.l2.password_file: '/nonexistent' (flag) cannot be read",
    (DSN, REDIS, "attributes.postgres_password_file=/nonexistent"): "'/nonexistent' (flag) cannot be read",
    ("attributes.postgres_dsn=host=db password=hunter2", REDIS): "attributes.postgres_dsn: has a password in it",
    ("attributes.postgres_dsn=postgres//u:hunter2@db", REDIS): "attributes.postgres_dsn: the connection string",
    (DSN, REDIS, "cache.l1.size=5"): "there is no such setting (flag)",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_be_used_stops_the_start_in_one_line(overrides: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["publisher", *(f"--set={override}" for override in overrides)], env={})

    assert result.exit_code == 2
    assert REFUSED[overrides] in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.output


def test_the_documentation_names_every_setting() -> None:
    text = (Path(__file__).parents[2] / "docs" / "publisher.md").read_text()

    assert [key for key in all_keys(PublisherSettings) if f"`{key}`" not in text] == []
