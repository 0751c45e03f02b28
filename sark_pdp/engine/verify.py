"""Looks into the modules of a bundle: what they want from the host, and whether this engine can run them."""

import time

import msgspec
from msgspec import Struct

from sark_pdp.engine.bundle import Bundle, Module
from sark_pdp.engine.policies import try_entrypoint
from sark_pdp.engine.wasm.builtins import NONDETERMINISTIC
from sark_pdp.engine.wasm.policy import Runtime, WasmPolicy, required_builtins
from sark_pdp.errors import BundleError
from sark_pdp.model import Seconds

_TIMEOUT = Seconds(1.0)


class HostNeeds(Struct, frozen=True):
    """What a module imports from its host."""

    builtins: tuple[str, ...]
    """Names of built-ins, sorted."""

    @property
    def nondeterministic(self) -> tuple[str, ...]:
        """Those whose result depends on more than their arguments: nothing of this module is cached for them."""
        return tuple(name for name in self.builtins if name in NONDETERMINISTIC)


class _SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()


def host_needs(path: str, module: Module) -> HostNeeds:
    """Of a module of the bundle at `path`; raises BundleError where it is none that OPA compiled."""
    try:
        return HostNeeds(tuple(sorted(required_builtins(module.wasm))))
    except BundleError as error:
        raise BundleError(f"bundle {path}: {module.path}: {error}") from None


def problems(bundle: Bundle, memory_limit: int) -> list[str]:
    """Why this engine would refuse the bundle, or cache less of it than it could: a sentence each.

    `memory_limit`, in bytes, is what an instance may take.
    """
    found = [
        f"{path}: the recorded reads were made for another module, so every field of the input counts; build it again"
        for path in bundle.stale
    ]
    runtime = Runtime(eval_timeout=_TIMEOUT, memory_limit=memory_limit, clock=_SystemClock())
    try:
        data_json = msgspec.json.encode(bundle.data)
        for module in bundle.modules:
            try:
                policy = WasmPolicy(runtime, module.wasm, data_json)
                for entrypoint in module.entrypoints:
                    try_entrypoint(policy, entrypoint.name)
            except BundleError as error:
                found.append(f"{module.path}: {error}")
    finally:
        runtime.close()
    return found
