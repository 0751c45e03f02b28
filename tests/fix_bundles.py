"""Bundles of one small policy with any data, and what keeps a Bundles object busy without a sidecar around it."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest

from sark_pdp.addresses import TcpAddress
from sark_pdp.engine.archive import pack_archive
from sark_pdp.engine.bundles.manager import Bundles
from sark_pdp.engine.bundles.server import BundleServer
from sark_pdp.engine.bundles.sources import Source
from sark_pdp.engine.bundles.supply import BundleOptions
from sark_pdp.engine.policies import LoadedPolicies, Policies
from sark_pdp.engine.preparation import PreparedBundle
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.model import Seconds

if TYPE_CHECKING:
    # Its own plugin: imported by another one first, its asserts would tell nothing.
    from tests.fix_engine import Compile

POLICY = """package p

marks := {"one": data.facts.mark, "two": data.facts.mark, "allow": true}

shared := data.lists.shared

endless if {
	input.never == false
	numbers.range(1, 100000000)
}
"""
ENTRYPOINTS = ("p/marks", "p/shared")
READS = {
    "p/marks": {"input": [], "data": [["facts"]]},
    "p/shared": {"input": [], "data": [["lists"]]},
}

MakeBundle: TypeAlias = Callable[..., dict[str, bytes]]
"""Of `mark`, and manifest keys: the files of a bundle whose entrypoint `p/marks` returns the mark twice."""


@pytest.fixture(scope="session")
def policy_wasm(compile_rego: "Compile") -> bytes:
    """POLICY."""
    return compile_rego(POLICY, ENTRYPOINTS)


@pytest.fixture(scope="session")
def make_bundle(policy_wasm: bytes) -> MakeBundle:
    """See MakeBundle."""

    def make(mark: Any = 1, **manifest: Any) -> dict[str, bytes]:
        sark = {
            "version": 1,
            "modules": {"/policy.wasm": {"sha256": sha256(policy_wasm).hexdigest(), "entrypoints": READS}},
        }
        told = {
            "revision": f"r{mark}",
            "roots": ["p", "facts"],
            "wasm": [{"entrypoint": name, "module": "/policy.wasm"} for name in ENTRYPOINTS],
            "metadata": {"sark": sark},
            **manifest,
        }
        return {
            ".manifest": json.dumps(told).encode(),
            "policy.wasm": policy_wasm,
            "data.json": json.dumps({"facts": {"mark": mark}}).encode(),
        }

    return make


def data_bundle(data: Mapping[str, Any], revision: str = "d1") -> dict[str, bytes]:
    """The files of a bundle of data alone."""
    manifest = {"revision": revision, "roots": sorted(data)}
    return {".manifest": json.dumps(manifest).encode(), "data.json": json.dumps(data).encode()}


def delta_bundle(operations: list[Any], **manifest: Any) -> dict[str, bytes]:
    """The files of a delta."""
    files = {"patch.json": json.dumps({"data": operations}).encode()}
    return {**files, ".manifest": json.dumps(manifest).encode()} if manifest else files


def write(path: Path, files: Mapping[str, bytes] | bytes) -> None:
    """Replaces a file in one step, as whoever delivers bundles should."""
    part = path.with_suffix(".part")
    part.write_bytes(files if isinstance(files, bytes) else pack_archive(files, level=1))
    part.replace(path)


class Seen:
    """The Observer of a test."""

    def __init__(self) -> None:
        self.activated_: list[str] = []
        self.failures: list[tuple[str, str]] = []

    def activated(self, bundles: Sequence[PreparedBundle], policies: LoadedPolicies, took: Seconds) -> None:
        """Keeps the revisions."""
        del policies
        assert took > 0
        self.activated_ += [bundle.revision for bundle in bundles]

    def failed(self, name: str, error: Exception, *, news: bool) -> None:
        """Keeps what is new."""
        if news:
            self.failures.append((name, str(error)))


class Running:
    """Bundles that are kept up to date, and what they did."""

    def __init__(self, bundles: Bundles, policies: Policies, seen: Seen) -> None:
        self.bundles, self.policies, self.seen = bundles, policies, seen

    def ask(self, entrypoint: str = "p/marks") -> Any:
        """What the active policies return on an empty input."""
        raw = self.policies.entrypoint(entrypoint).evaluate(b"{}")
        return None if raw is None else msgspec.json.decode(raw)

    def mark(self) -> Any:
        """Of the active bundle; fails where an answer is of two revisions."""
        answer = self.ask()
        assert answer["one"] == answer["two"]
        return answer["one"]

    def error(self, name: str = "b") -> str:
        """What is wrong with a bundle."""
        return next(state.error for state in self.bundles.states() if state.name == name)


@contextmanager
def kept(runtime: Runtime, *configured: tuple[BundleOptions, Source], max_bytes: int = 1 << 26) -> Iterator[Running]:
    """Started; closed at the end."""
    policies, seen = Policies(runtime), Seen()
    bundles = Bundles(policies, configured, max_bytes, seen)
    bundles.start()
    try:
        yield Running(bundles, policies, seen)
    finally:
        bundles.close(Seconds(60.0))


def options(name: str = "b", interval: float = 0.05, **keys: Any) -> BundleOptions:
    """Looked at often, so that a test need not wait."""
    return BundleOptions(name, Seconds(interval), **keys)


@contextmanager
def served(folder: Path, token: str | None = None) -> Iterator[BundleServer]:
    """A bundle server on a port of its own."""
    server = BundleServer(folder, TcpAddress("127.0.0.1", 0), token)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Waits for a condition, with all the time that a busy machine needs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
