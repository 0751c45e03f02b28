"""The front does what h2spec, which tries what HTTP/2 forbids and asks for, wants of it, strict cases included.

h2spec takes it for any web server: its requests are no gRPC, and are refused when they have come whole.
"""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

# docs/transport.md lists them too.
EXPLAINED = {
    # The peer is gone by a reset: bytes behind a wrong preface are not read.
    "Sends invalid connection preface",
    # Each request is answered before the next one comes, so there are never too many of them.
    "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
}


@pytest.mark.parametrize("peer", ["front_peer", "tls_peer"])
def test_the_front_is_as_http2_has_it(request: pytest.FixtureRequest, peer: str, h2spec: Path, tmp_path: Path) -> None:
    port = request.getfixturevalue(peer).port
    report = tmp_path / "report.xml"
    options = ["--tls", "--insecure"] if peer == "tls_peer" else []
    command: list[str | Path] = [
        h2spec,
        "--strict",
        f"--port={port}",
        "--timeout=5",
        f"--junit-report={report}",
        *options,
    ]
    # Its exit code says that something failed; what did is in the report.
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110)
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314  # h2spec is trusted
    assert len(cases) > 140, ran.stdout
    failed = {
        case.get("classname") for case in cases if case.find("error") is not None or case.find("failure") is not None
    }
    assert failed <= EXPLAINED, ran.stdout
