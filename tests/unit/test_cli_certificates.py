"""`sark-pdp certificates` outside a cluster; tests/integration/test_chart_cluster.py has it at work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from sark_pdp.cli import main

ASKED = ["certificates", "--namespace=n", "--authority=a", "--issue=tls=web.n.svc"]


@pytest.mark.parametrize("missing", ["--ca-file", "--token-file"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    files = {name: tmp_path / name.strip("-") for name in ("--ca-file", "--token-file")}
    for name, file in files.items():
        if name != missing:
            file.write_text("x")
    result = CliRunner().invoke(main, [*ASKED, *(f"{name}={file}" for name, file in files.items())], env={})
    assert result.exit_code == 2
    assert result.output == (
        f"sark-pdp: {files[missing]}: cannot be read; run in a pod of the cluster, or give --token-file and --ca-file\n"
    )
