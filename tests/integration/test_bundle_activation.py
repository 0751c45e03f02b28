"""A sidecar whose bundles change: what callers, the status, metrics and the audit trail see of it."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sark_pdp._proto import decision_pb2 as wire
from sark_pdp._proto.admin_pb2 import ReloadBundleRequest, ReloadBundleResponse
from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.bundles.sources import FileSource
from sark_pdp.engine.wasm.policy import Runtime
from tests.fix_bundles import MakeBundle, kept, options, served, until, write
from tests.fix_native import Channel, events, failure
from tests.fix_serve import Serve, Sidecar

RELOAD = "/sark.pdp.v1.Administration/ReloadBundle"


@pytest.fixture
def place(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """A file with a good bundle, marked 1."""
    path = tmp_path / "b.tar.gz"
    write(path, make_bundle(1))
    return path


def settings_of(state: str, **bundle: object) -> dict[str, object]:
    return {
        "policy.bundles": [{"name": "b", **bundle}],
        "policy.entrypoint": "p/marks",
        "policy.ext_authz_entrypoint": "p/marks",
        "state_dir": state,
    }


def bundle_of(channel: Channel) -> tuple[str, str]:
    """Revision and error of the one bundle, as the status has them."""
    (bundle,) = channel.status().bundles
    return bundle.revision, bundle.error


def reload_bundle(channel: Channel, name: str = "") -> ReloadBundleResponse:
    return ReloadBundleResponse.FromString(channel.call(RELOAD, ReloadBundleRequest(name=name).SerializeToString()))


def check(channel: Channel) -> wire.CheckResponse:
    return channel.check(wire.CheckRequest(input_json=b"{}"))


def mark_of(answer: wire.CheckResponse) -> tuple[int, str]:
    """The mark and the revision; fails where an answer is of two revisions."""
    result = json.loads(answer.result_json)
    assert result["one"] == result["two"]
    assert answer.policy_revision == f"r{result['one']}"
    return result["one"], answer.policy_revision


def metric(sidecar: Sidecar, name: str) -> str:
    """All lines of a metric."""
    return "\n".join(line for line in sidecar.get("/metrics")[1].splitlines() if line.startswith(name))


def test_a_refusal_is_told_and_the_next_good_bundle_is_activated(
    serve: Serve, shared_state: str, place: Path, make_bundle: MakeBundle
) -> None:
    sidecar = serve(settings_of(shared_state, path=str(place), poll_interval="0"))
    sidecar.wait_ready()
    with Channel(sidecar.grpc) as channel, Channel(sidecar.admin) as admin:
        assert mark_of(check(channel)) == (1, "r1")
        place.write_bytes(pack_archive(make_bundle(2))[:-1000])
        answer = reload_bundle(admin)
        assert (answer.bundle.name, answer.bundle.revision) == ("b", "r1")
        assert "is truncated" in answer.bundle.error
        status = admin.status()
        assert status.serving
        assert list(status.problems) == [f"Bundle b is not activated: {answer.bundle.error}."]
        assert 'sark_bundle_failing{name="b"} 1.0' in metric(sidecar, "sark_bundle_failing")
        assert 'sark_bundle_failures_total{name="b",reason="invalid"} 1.0' in metric(sidecar, "sark_bundle_failures")
        # In the cache, and still of the old revision.
        assert mark_of(check(channel)) == (1, "r1")
        write(place, make_bundle(2))
        answer = reload_bundle(admin, "b")
        assert (answer.bundle.revision, answer.bundle.error) == ("r2", "")
        assert mark_of(check(channel)) == (2, "r2")
        assert 'sark_bundle_failing{name="b"} 0.0' in metric(sidecar, "sark_bundle_failing")
        assert 'sark_bundle_activations_total{name="b"} 2.0' in metric(sidecar, "sark_bundle_activations")
        assert 'sark_bundle_info{name="b",revision="r2"} 1.0' in metric(sidecar, "sark_bundle_info")
        refused = failure(lambda: reload_bundle(admin, "nope"))
        assert (refused.code, refused.details) == (
            "INVALID_ARGUMENT",
            "name: there is no bundle 'nope'; the configured ones are b",
        )
    assert sidecar.stop() == 0
    told = [(each.event_type, each.severity) for each in events(sidecar.spool_dir) if "policy" in each.event_type]
    assert told == [("policy_activated", "low"), ("policy_refused", "medium"), ("policy_activated", "low")]


def test_a_hangup_looks_for_bundles_at_once(
    serve: Serve, shared_state: str, place: Path, make_bundle: MakeBundle
) -> None:
    sidecar = serve(settings_of(shared_state, path=str(place), poll_interval="0"))
    sidecar.wait_ready()
    with Channel(sidecar.admin) as admin:
        write(place, make_bundle(2))
        sidecar.process.send_signal(signal.SIGHUP)
        until(lambda: bundle_of(admin) == ("r2", ""))


def test_a_sidecar_serves_as_soon_as_its_bundle_can_be_fetched(
    serve: Serve, shared_state: str, place: Path, tmp_path: Path
) -> None:
    with served(tmp_path) as server:
        hidden = place.rename(tmp_path / ".hidden")
        keep = tmp_path / "kept"
        url = f"http://{server.address}/b.tar.gz"
        settings = settings_of(shared_state, url=url, poll_interval="100ms", persist_dir=str(keep))
        sidecar = serve(settings)
        until(lambda: "the server answers 404" in sidecar.log)
        assert sidecar.get("/readyz") == (503, "not ready: no policy bundle is active yet\n")
        hidden.rename(place)
        sidecar.wait_ready()
        assert sidecar.stop() == 0
        assert "none yet" in sidecar.output
    # Without the server it begins with what it had.
    sidecar.start()
    sidecar.wait_ready()
    with Channel(sidecar.grpc) as channel:
        assert mark_of(check(channel)) == (1, "r1")


@pytest.fixture
def asking(serve: Serve, shared_state: str, place: Path) -> Iterator[tuple[Sidecar, list[str]]]:
    """A sidecar that is asked without a pause, alone and in batches, until the end; and what was wrong."""
    settings = {**settings_of(shared_state, path=str(place), poll_interval="0"), "cache.l1.ttl": "20ms"}
    sidecar = serve(settings)
    sidecar.wait_ready()
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with Channel(sidecar.grpc) as channel:
            while not done.is_set():
                try:
                    mark_of(check(channel))
                    results = channel.batch(*[wire.CheckRequest(input_json=b"{}")] * 5)
                    if len({mark_of(result.response) for result in results}) != 1:
                        wrong.append("a batch of two revisions")
                except Exception as error:  # noqa: BLE001  # told by the test
                    wrong.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield sidecar, wrong
    done.set()
    for thread in threads:
        thread.join()


def test_activations_under_load_fail_no_call_and_mix_no_revisions(
    asking: tuple[Sidecar, list[str]], place: Path, make_bundle: MakeBundle
) -> None:
    sidecar, wrong = asking
    with Channel(sidecar.admin) as admin:
        for number in range(2, 22):
            write(place, make_bundle(number))
            assert reload_bundle(admin).bundle.revision == f"r{number}"
    assert wrong == []


def test_activations_leave_nothing_behind(patient_runtime: Runtime, place: Path, make_bundle: MakeBundle) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def mapped() -> int:
        """Bytes of address space: an instance that is not freed keeps gigabytes of it."""
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    with kept(patient_runtime, (options(interval=0.0), FileSource(place, 1 << 26))) as running:

        def activate(numbers: range) -> None:
            for number in numbers:
                write(place, make_bundle(number))
                running.bundles.reload("b")
                assert running.mark() == number

        activate(range(2, 12))
        files, space = open_files(), mapped()
        activate(range(12, 62))
        # What other tests left open may be closed by now, and what they left running may have opened something.
        until(lambda: open_files() <= files)
        # 50 instances would be 50 times as much.
        assert mapped() - space < 10 * (1 << 30)
