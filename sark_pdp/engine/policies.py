"""The active policies: what a bundle becomes when it is activated."""

import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from sark_pdp.engine.bundle import Bundle, Module, ModuleEntrypoint, read_bundle
from sark_pdp.engine.wasm.builtins import NONDETERMINISTIC
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.errors import BundleError, NotReadyError, UnknownEntrypointError
from sark_pdp.model import PolicyRevision, Seconds
from sark_pdp.projection import Projection

KEY_VERSION: Final = b"1"
"""Part of every fingerprint; raised when the meaning of a cache key changes."""

_canonical = msgspec.json.Encoder(order="deterministic").encode


class LoadedEntrypoint:
    """One entrypoint of an activated module. Immutable, thread-safe."""

    __slots__ = ("_number", "_policy", "deterministic", "fingerprint", "name", "projection", "revision")

    def __init__(self, policy: WasmPolicy, bundle: Bundle, module: Module, stated: ModuleEntrypoint) -> None:
        self._policy = policy
        self._number = policy.entrypoint(stated.name)
        self.name = stated.name
        self.revision = PolicyRevision(bundle.revision or bundle.digest)
        self.projection = Projection(stated.reads_input)
        self.deterministic = not policy.builtins & NONDETERMINISTIC
        self.fingerprint = _fingerprint(module, bundle, stated)

    def evaluate(self, input_json: bytes) -> bytes | None:
        """The result as JSON, None where it is undefined; raises EvaluationError."""
        return self._policy.evaluate(self._number, input_json)


class LoadedPolicies:
    """The entrypoints of one activation."""

    def __init__(self, bundle: Bundle, entrypoints: Mapping[str, LoadedEntrypoint]) -> None:
        self.bundle = bundle
        self._entrypoints = entrypoints
        self.names = tuple(sorted(entrypoints))

    def entrypoint(self, name: str) -> LoadedEntrypoint:
        """Raises UnknownEntrypointError."""
        try:
            return self._entrypoints[name]
        except KeyError:
            raise UnknownEntrypointError(name, self.names) from None


class BundleState(msgspec.Struct, frozen=True):
    """How a configured bundle stands."""

    name: str
    revision: str = ""
    digest: str = ""
    error: str = ""


class Policies:
    """Holds the active policies and replaces them in one assignment. `activate` is called by one thread at a time."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._active: LoadedPolicies | None = None

    def active(self) -> LoadedPolicies:
        """Raises NotReadyError before the first activation."""
        active = self._active
        if active is None:
            raise NotReadyError("no policy bundle is active yet")
        return active

    def entrypoint(self, name: str) -> LoadedEntrypoint:
        """Raises NotReadyError or UnknownEntrypointError."""
        return self.active().entrypoint(name)

    def activate(self, path: Path) -> tuple[LoadedPolicies, Seconds]:
        """Reads, compiles, warms and swaps in a bundle; returns it and the time that took.

        Raises BundleError, and the active one stays.
        """
        began = time.monotonic()
        policies = load(read_bundle(path), self._runtime)
        self._active = policies
        return policies, Seconds(time.monotonic() - began)


def load(bundle: Bundle, runtime: Runtime) -> LoadedPolicies:
    """Compiles the modules of a bundle and makes an instance of each. Raises BundleError."""
    entrypoints: dict[str, LoadedEntrypoint] = {}
    for module in bundle.modules:
        # A module gets the data that its entrypoints can read, and no more: memory is paid for each instance.
        needed = Projection(path for stated in module.entrypoints for path in stated.reads_data)
        data = needed.project(bundle.data)
        try:
            policy = WasmPolicy(runtime, module.wasm, _canonical(data))
            for stated in module.entrypoints:
                entrypoints[stated.name] = LoadedEntrypoint(policy, bundle, module, stated)
        except BundleError as error:
            raise BundleError(f"{module.path}: {error}") from error
    return LoadedPolicies(bundle, entrypoints)


def _fingerprint(module: Module, bundle: Bundle, stated: ModuleEntrypoint) -> bytes:
    read = Projection(stated.reads_data)
    parts = (
        KEY_VERSION,
        module.digest.encode(),
        _canonical(read.project(bundle.data)),
        stated.name.encode(),
    )
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
