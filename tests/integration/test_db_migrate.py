"""`sark-pdp db migrate` as processes: several at once, and again."""

import subprocess
from pathlib import Path

import psycopg
import pytest

TOGETHER = 3


def migrating(sark_pdp: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sark_pdp, "db", "migrate", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("options", [[], ["--registry"]], ids=["audit trail", "registry"])
def test_of_several_that_migrate_at_once_each_step_is_done_by_one(
    sark_pdp: Path, database: str, options: list[str]
) -> None:
    """As when replicas start together with the same init container; a second time there is nothing to do."""
    processes = [migrating(sark_pdp, *options, "--dsn", database) for _ in range(TOGETHER)]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * TOGETHER, said
    steps = [line for text in said for line in text.splitlines() if line.startswith("applied ")]
    assert len(steps) == len(set(steps)) > 0
    assert {text.splitlines()[-1] for text in said} <= {"the schema is up to date", "nothing to do"}

    again = [migrating(sark_pdp, *options, "--dsn", database) for _ in range(TOGETHER)]
    assert [process.communicate(timeout=100)[1] for process in again] == ["nothing to do\n"] * TOGETHER
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM sark_pdp.migrations").fetchone() == (len(steps),)
