"""A real Prometheus, and what its API says."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


class Prometheus:
    """One that scrapes these targets (`host:port` by the name of their pod) each second."""

    def __init__(self, program: Path, folder: Path, targets: Mapping[str, str]) -> None:
        # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
        from tests.fix_serve import free_port

        self._port = free_port()
        self._log = folder / "prometheus.log"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {
                    "job_name": pod,
                    "static_configs": [{"targets": [target], "labels": {"namespace": "test", "pod": pod}}],
                }
                for pod, target in targets.items()
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))
        flags = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *flags, f"--web.listen-address=127.0.0.1:{self._port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives; fails with what Prometheus says where it is none."""
        found = self.get("query", query=expression)["result"]
        assert isinstance(found, list)
        return found

    def get(self, path: str, **parameters: str) -> Any:
        """What an endpoint of the API answers."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def wait_scraped(self, targets: int) -> None:
        """Until it has had an answer of each target twice, so that there are rates."""
        self.wait_for(f"count(count_over_time(up[1m]) >= 2) == {targets}")

    def wait_for(self, expression: str) -> None:
        """Until it gives something."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, (expression, self._log.read_text())
            try:
                if self.query(expression):
                    return
            except OSError:
                pass
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
