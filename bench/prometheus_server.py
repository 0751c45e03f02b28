"""A Prometheus of a script's own, which scrapes each second, and what its API answers."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from bench.machine import TOOLS, free_port, running, wait_ready
from bench.panels import Span
from bench.servers import is_ready

_PROGRAM: Final = TOOLS / "prometheus"
_TIMEOUT: Final = 60


class PrometheusServer(Struct, frozen=True):
    """One that answers."""

    address: str

    def query_range(self, expression: str, span: Span) -> list[dict[str, Any]]:
        """The series of an expression."""
        asked = {"query": expression, "start": f"{span.start:.3f}", "end": f"{span.end:.3f}", "step": f"{span.step:g}"}
        url = f"http://{self.address}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


@contextmanager
def prometheus_server(folder: Path, targets: Mapping[str, str], core: str) -> Iterator[PrometheusServer]:
    """`targets` are `host:port` by the name of their pod. Exits with what to do where it is not built."""
    if not _PROGRAM.exists():
        raise SystemExit("Prometheus is not built: run `make prometheus`")
    address = f"127.0.0.1:{free_port()}"
    labelled = [
        {"targets": [target], "labels": {"namespace": "demo", "pod": pod, "instance": pod}}
        for pod, target in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "sark-pdp", "static_configs": labelled}],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))
    command = (_PROGRAM, f"--config.file={file}", f"--storage.tsdb.path={folder}/tsdb", "--log.level=warn")
    output = folder / "prometheus.log"
    with running((*command, f"--web.listen-address={address}"), core, output) as process:
        wait_ready(process, lambda: is_ready(f"http://{address}/-/ready"), output)
        yield PrometheusServer(address)
