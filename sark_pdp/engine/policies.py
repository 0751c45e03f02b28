"""The active policies: what prepared bundles become when they are activated."""

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from sark_pdp.engine.bundle import Bundle
from sark_pdp.engine.preparation import Prepared, PreparedEntrypoint, PreparedModule, combine
from sark_pdp.engine.wasm.builtins import NONDETERMINISTIC
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy
from sark_pdp.errors import BundleActivationError, BundleError, EvaluationError, NotReadyError, UnknownEntrypointError
from sark_pdp.model import PolicyRevision
from sark_pdp.projection import Projection

_TRIALS: Final = 3
"""Times that an entrypoint may fail on an empty input: on a busy machine one evaluation can lose its time to others."""
_PAUSE: Final = 0.05
"""Seconds between them."""
_CONFLICT: Final = "conflict"
"""In the message of OPA's compiler where two rules disagree, which on an empty input says nothing against a policy."""

_ModuleKey = tuple[str, bytes]
"""Digests of a module and of its data."""


class LoadedEntrypoint:
    """One entrypoint of an activated module. Immutable, thread-safe."""

    __slots__ = ("_number", "_policy", "deterministic", "fingerprint", "name", "projection", "reads_data", "revision")

    def __init__(self, policy: WasmPolicy, revision: str, prepared: PreparedEntrypoint) -> None:
        self._policy = policy
        self._number = policy.entrypoint(prepared.name)
        self.name = prepared.name
        self.revision = PolicyRevision(revision)
        self.projection = Projection(prepared.reads_input)
        self.reads_data = prepared.reads_data
        self.deterministic = not policy.builtins & NONDETERMINISTIC
        self.fingerprint = prepared.fingerprint

    def evaluate(self, input_json: bytes) -> bytes | None:
        """The result as JSON, None where it is undefined; raises EvaluationError."""
        return self._policy.evaluate(self._number, input_json)

    def evaluate_nowait(self, input_json: bytes) -> bytes | None:
        """The same within about 1 ms; raises WouldWaitError where it takes longer."""
        return self._policy.evaluate_nowait(self._number, input_json)


class BundleState(msgspec.Struct, frozen=True):
    """How a configured bundle stands."""

    name: str
    revision: str = ""
    """Of what is active; empty before that, and where its manifest has none."""
    digest: str = ""
    """Of what is active; empty before that."""
    error: str = ""
    """Why what was delivered last is not active, or why nothing is delivered; empty where all is well."""


class LoadedPolicies:
    """The entrypoints of one activation."""

    def __init__(self, entrypoints: Mapping[str, LoadedEntrypoint], modules: Mapping[_ModuleKey, WasmPolicy]) -> None:
        self.names = tuple(sorted(entrypoints))
        self._entrypoints = entrypoints
        self._modules = modules

    def entrypoint(self, name: str) -> LoadedEntrypoint:
        """Raises UnknownEntrypointError."""
        try:
            return self._entrypoints[name]
        except KeyError:
            raise UnknownEntrypointError(name, self.names) from None

    def module(self, key: _ModuleKey) -> WasmPolicy | None:
        """The module with this content and this data, where there is one."""
        return self._modules.get(key)

    def instances(self, entrypoint: str) -> int:
        """How many evaluations of it can run at once without making an instance."""
        loaded = self._entrypoints.get(entrypoint)
        return 0 if loaded is None else loaded._policy.instances  # noqa: SLF001

    def close(self, successor: "LoadedPolicies | None" = None) -> None:
        """Frees what `successor` does not use; evaluations that run finish."""
        for key, module in self._modules.items():
            if successor is None or successor.module(key) is not module:
                module.close()


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

    def activate(self, prepared: Prepared) -> LoadedPolicies:
        """Compiles, warms, tries and swaps in; then frees what it replaced.

        Raises BundleActivationError, and the active ones stay.
        """
        former = self._active
        policies = load_prepared(prepared, self._runtime, former)
        self._active = policies
        if former is not None:
            former.close(policies)
        self._runtime.modules.tidy(frozenset(module.digest for module in prepared.modules))
        return policies


def load(bundle: Bundle, runtime: Runtime) -> LoadedPolicies:
    """One bundle alone, loaded and tried. Raises BundleError."""
    return load_prepared(combine({bundle.name: bundle}), runtime, None)


def load_prepared(prepared: Prepared, runtime: Runtime, former: LoadedPolicies | None) -> LoadedPolicies:
    """Loads and tries each module that `former` does not have with the same data.

    As many instances are made as the former module of the same entrypoints has, so that no call pays for one. Raises
    BundleActivationError, and nothing is left of what was loaded.
    """
    if not prepared.modules:
        names = ", ".join(bundle.name for bundle in prepared.bundles)
        raise BundleActivationError(f"no policy.wasm is in {names}: only data")
    entrypoints: dict[str, LoadedEntrypoint] = {}
    modules: dict[_ModuleKey, WasmPolicy] = {}
    data: dict[bytes, bytes] = {}
    try:
        for module in prepared.modules:
            digest = sha256(module.data_json).digest()
            key = (module.digest, digest)
            # Modules that read the same share one copy.
            data_json = data.setdefault(digest, module.data_json)
            policy = modules.get(key) or (former and former.module(key)) or _loaded(module, data_json, runtime, former)
            modules[key] = policy
            for stated in module.entrypoints:
                entrypoints[stated.name] = LoadedEntrypoint(policy, module.revision, stated)
    except BundleError as error:
        LoadedPolicies(entrypoints, modules).close(former)
        raise BundleActivationError(f"bundle {module.bundle}: {module.path}: {error}") from error
    return LoadedPolicies(entrypoints, modules)


def _loaded(module: PreparedModule, data_json: bytes, runtime: Runtime, former: LoadedPolicies | None) -> WasmPolicy:
    policy = WasmPolicy(runtime, module.wasm, data_json)
    try:
        for stated in module.entrypoints:
            try_entrypoint(policy, stated.name)
        wanted = max(former.instances(stated.name) for stated in module.entrypoints) if former else 1
        policy.warm(wanted)
    except BundleError:
        policy.close()
        raise
    return policy


def try_entrypoint(policy: WasmPolicy, name: str) -> None:
    """Evaluates it once, on an empty object. Raises BundleError where it fails, or the module does not have it.

    Undefined is what most policies say to that, and rules may disagree.
    """
    number = policy.entrypoint(name)
    for trial in range(_TRIALS):
        try:
            policy.evaluate(number, b"{}")
        except EvaluationError as error:
            if _CONFLICT in str(error):
                return
            if trial == _TRIALS - 1:
                raise BundleError(f"the entrypoint {name} fails on an empty input: {error}") from error
            time.sleep(_PAUSE)
        else:
            return
