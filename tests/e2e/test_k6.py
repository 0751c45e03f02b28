"""The real k6 posts to the HTTP API as SARK's load scripts do."""

import json
import subprocess
from pathlib import Path

from tests.fix_native import assert_quiet, metric
from tests.fix_serve import Sidecar
from tests.fix_tools import ROOT

SCRIPT = ROOT / "tests" / "e2e" / "k6" / "evaluate.js"
CALLS = 500


def test_a_script_for_sark_finds_every_answer_to_be_200(k6: Path, default_http: Sidecar, tmp_path: Path) -> None:
    """Its checks and thresholds hold; nothing is sent anywhere else."""
    before = metric(default_http, "sark_http_requests_total", endpoint="/api/v1/policy/evaluate", status="200")
    base = f"BASE_URL=http://{default_http.settings['listen.http']}"
    summary = tmp_path / "summary.json"
    options = ["--quiet", "--no-usage-report", "--vus", "5", "--iterations", str(CALLS), "--env", base]
    exported = ["--summary-export", str(summary), "--address", "127.0.0.1:0"]
    ran = subprocess.run([k6, "run", *options, *exported, SCRIPT], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    metrics = json.loads(summary.read_text())["metrics"]
    assert (metrics["checks"]["passes"], metrics["checks"]["fails"]) == (3 * CALLS, 0)
    counted = metric(default_http, "sark_http_requests_total", endpoint="/api/v1/policy/evaluate", status="200")
    assert counted - before == CALLS
    assert_quiet(default_http.log)
