"""`sark-pdp publisher` as a real process."""

import http.client
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class PublisherProcess:
    """One `sark-pdp publisher`."""

    def __init__(self, command: Path, folder: Path, settings: Mapping[str, str]) -> None:
        # pytest rewrites the assertions of fixture modules as it loads them, so none may be imported before.
        from tests.fix_serve import free_port

        self._port = free_port()
        self._log = folder / "publisher.log"
        given = {"listen.metrics": f"127.0.0.1:{self._port}", **settings}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SARK_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [command, "publisher", *(f"--set={key}={value}" for key, value in given.items())],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment,
            )

    @property
    def address(self) -> str:
        """Of `listen.metrics`."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            assert self.process.poll() is None, self.log
            return 0, ""
        finally:
            connection.close()
