"""The HTTP API in a real process: when it answers, how it lets go, what it costs where it is off, odd bodies."""

import http.client
import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fix_http import (
    AUTHORIZE,
    AUTHORIZE_A2A,
    BATCH,
    EVALUATE,
    EVALUATION,
    EVALUATIONS,
    HttpClient,
    evaluate,
    serving_http,
)
from tests.fix_native import assert_quiet, events, wait_until, wire_policy
from tests.fix_serve import Serve, Sidecar, free_port
from tests.fix_tools import ROOT

POSTS = [EVALUATE, BATCH, AUTHORIZE, AUTHORIZE_A2A, EVALUATION, EVALUATIONS, "/v1/data/wire/decide"]


def address(served: Sidecar) -> str:
    return str(served.settings["listen.http"])


# What it is made of --------------------------------------------------------------------------------------------------

IMPORTS = """
import sys
from sark_pdp.app import App
from sark_pdp.settings import load

app = App(load(None, sys.argv[1:]).settings)
app.start()
app.stop()
print(*sorted(name for name in sys.modules if name.partition(".")[0] in {"uvicorn", "starlette", "h11", "anyio"}
    or name.startswith(("sark_pdp.transport.http", "sark_pdp.http_api"))))
"""


@pytest.mark.parametrize("listens", ["", "on"])
def test_where_it_is_off_nothing_of_it_is_imported(
    sark_pdp: Path, tmp_path: Path, shared_state: str, listens: str
) -> None:
    """Seen from within a process that has started and stopped."""
    settings = {
        "listen.grpc": f"127.0.0.1:{free_port()}",
        "listen.http": listens and f"127.0.0.1:{free_port()}",
        "listen.metrics": f"127.0.0.1:{free_port()}",
        "listen.admin": f"unix://{tmp_path}/a.sock",
        "audit.spool_dir": str(tmp_path / "audit"),
        "state_dir": shared_state,
    }
    python = sark_pdp.parent / "python"
    arguments = [f"{key}={value}" for key, value in settings.items()]
    done = subprocess.run([python, "-c", IMPORTS, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout.strip()) is bool(listens), done.stdout


def test_where_it_is_off_nothing_listens(serve: Serve, shared_state: str) -> None:
    served = serve({"listen.http": "", "state_dir": shared_state})
    served.wait_ready()
    assert "listen.http" not in served.output
    listening = {each.laddr.port for each in psutil.Process(served.process.pid).net_connections("tcp")}
    assert 9002 not in listening
    assert "sark_http" not in served.get("/metrics")[1]


# From the start to the end -------------------------------------------------------------------------------------------


def test_before_a_bundle_is_active_it_is_503(serve: Serve, tmp_path: Path) -> None:
    """Counted, not audited. What needs no policy is answered."""
    bundle = {"name": "late", "url": f"http://127.0.0.1:{free_port()}/bundle.tar.gz"}
    served = serve({"listen.http": f"127.0.0.1:{free_port()}", "policy.bundles": [bundle]})

    def answers() -> bool:
        try:
            with HttpClient(address(served)) as client:
                return client.get("/openapi.json").status == 200
        except OSError:
            return False

    wait_until(answers)
    with HttpClient(address(served)) as client:
        bodies: dict[str, Any] = {
            EVALUATE: {},
            BATCH: [{}],
            EVALUATIONS: {"evaluations": [{}]},
            "/v1/data/wire/decide": {"input": {}},
        }
        for path, body in bodies.items():
            refused = client.post(path, body)
            assert refused.problem == (503, "no policy bundle is active yet")
            assert refused.headers["retry-after"] == "1"
    assert served.stop() == 0
    assert [each for each in events(served.spool_dir) if each.decision] == []


def test_requests_in_flight_finish_and_idle_connections_do_not_hold_the_end(
    serve: Serve, wire_bundle: Path, shared_state: str, short_dir: Path
) -> None:
    """With a grace that nobody would wait for. Each answer that was given is in the trail."""
    served = serve({
        **wire_policy(wire_bundle),
        "state_dir": shared_state,
        "audit.spool_dir": str(short_dir / "audit"),
        "listen.http": f"unix://{short_dir}/http.sock",
        "limits.eval_timeout": "500ms",
        "shutdown.grace": "1h",
    })  # fmt: skip
    served.wait_ready()
    with ExitStack() as open_:
        idle = [open_.enter_context(HttpClient(address(served))) for _ in range(3)]
        ids = {evaluate(client, "allow")["decision_id"] for client in idle}
        # Twice as many as are answered at a time: the later ones wait for a thread.
        slow = [open_.enter_context(HttpClient(address(served))) for _ in range(8)]
        for salt, client in enumerate(slow):
            client.connection.request("POST", EVALUATE, json.dumps({"case": "timeout", "salt": salt}))
        # The loop has looked at all connections before it answers this for the second time.
        for _ in range(2):
            with HttpClient(address(served)) as probe:
                assert probe.get("/.well-known/authzen-configuration").status == 200
        served.process.send_signal(signal.SIGTERM)
        answers = [client.answer() for client in slow]
        assert {client.connection.sock.recv(1) for client in idle if client.connection.sock} == {b""}
    assert served.wait_exit() == 0
    assert [each.status for each in answers] == [200] * 8
    # Some may have been answered before it was told.
    assert {each.headers.get("connection", "close") for each in answers} == {"close"}
    assert all("limits.eval_timeout" in each.json["reason"] for each in answers)
    assert ids | {each.json["decision_id"] for each in answers} <= {each.id for each in events(served.spool_dir)}
    assert not (short_dir / "http.sock").exists()
    assert_quiet(served.log)


def test_the_grace_bounds_requests_that_go_on(serve: Serve, wire_bundle: Path, shared_state: str) -> None:
    """An evaluation that may take an hour holds neither its caller nor the process."""
    served = serve({
        **wire_policy(wire_bundle),
        "state_dir": shared_state,
        "listen.http": f"127.0.0.1:{free_port()}",
        "limits.eval_timeout": "1h",
        "shutdown.grace": "300ms",
    })  # fmt: skip
    served.wait_ready()

    def ask() -> bool:
        with HttpClient(address(served)) as client:
            try:
                client.post(EVALUATE, {"case": "timeout"})
            except (OSError, http.client.HTTPException):
                return True
        return False

    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(ask)
        process = psutil.Process(served.process.pid)
        began = sum(process.cpu_times()[:2])
        # It spins: the request is in the process.
        wait_until(lambda: sum(process.cpu_times()[:2]) > began + 1.0)
        served.process.send_signal(signal.SIGTERM)
        assert cut.result()
    assert served.wait_exit() == 0
    assert_quiet(served.log)


# Odd bodies ----------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([
    *("user", "user_id", "tool", "server", "server_id", "policy", "request_id", "max_age", "input", "case"),
    *("checks", "requests", "evaluations", "options", "subject", "action", "resource", "context", "type", "id", "name"),
    *("source_agent", "target_agent_id", "capability", "tool_name", "parameters", "properties", "evaluations_semantic"),
]) | st.text(max_size=8)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["allow", "paths", "conflict", "user", "tool", "query", "execute_all", "wire/decide"])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=20
)


@pytest.mark.parametrize("path", POSTS)
def test_no_body_makes_it_fail(wired_http: Sidecar, path: str) -> None:
    """Whatever JSON comes, or what is none: 200 or a refusal in the one shape, never a 5xx, nothing in the log."""
    client = HttpClient(address(wired_http))

    @given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
    def send(body: bytes) -> None:
        answer = client.post(path, body)
        if answer.status != 200:
            assert answer.problem[0] in {400, 404}, answer.body
        else:
            assert type(answer.json) in {dict, list}

    with client:
        send()
    assert_quiet(wired_http.log)


def test_it_serves_many_at_a_time(sark_pdp: Path, wire_bundle: Path, shared_state: str) -> None:
    """Each caller gets his own answer; each is in the trail once."""
    settings = {**wire_policy(wire_bundle), "state_dir": shared_state, "audit.spool_dir": "{folder}/audit"}
    with serving_http(sark_pdp, settings) as served:

        def ask(number: int) -> list[str]:
            ids = []
            with HttpClient(address(served)) as client:
                for turn in range(25):
                    answer = evaluate(client, "object", salt=turn % 5, request_id=f"{number}-{turn}")
                    assert answer["request_id"] == f"{number}-{turn}"
                    ids.append(answer["decision_id"])
            return ids

        with ThreadPoolExecutor(16) as pool:
            ids = [id_ for made in pool.map(ask, range(16)) for id_ in made]
        assert len(set(ids)) == 400
        spool = served.spool_dir
        wait_until(lambda: {each.id for each in events(spool)} >= set(ids))
        assert_quiet(served.log)
