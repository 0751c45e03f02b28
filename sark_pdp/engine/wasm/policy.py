"""A compiled module with the instances that evaluate it: what the rest of the engine sees of WebAssembly."""

import random
import time
from collections import deque
from pathlib import Path
from typing import Final

from sark_pdp.engine.wasm import ffi
from sark_pdp.engine.wasm.abi import Instance
from sark_pdp.engine.wasm.builtins import Context, resolve
from sark_pdp.engine.wasm.modules import Modules, compiled, configured_engine
from sark_pdp.engine.wasm.pace import BUDGET, Pace
from sark_pdp.engine.wasm.ticker import Ticker, ticks_in
from sark_pdp.errors import BundleError, EvaluationError, EvaluationTimeoutError, WouldWaitError
from sark_pdp.interfaces import Clock
from sark_pdp.model import Seconds

_RESULT: Final = b'[{"result":'
_NO_LIMIT: Final = 1 << 32
_MOST_GROWTH: Final = 4 * 1024 * 1024
"""Bytes of memory beyond what the module and its data take. Filling more takes longer than making an instance."""
_QUICK: Final = 0.0005
"""Seconds. What took no longer cannot have grown by much, and need not pay for looking."""

_SHORT: Final = 16 * 1024
"""Bytes. A longer input is not given to a policy where nothing may wait: to read it alone takes long."""


def required_builtins(wasm: bytes) -> frozenset[str]:
    """The names of the built-ins that a module wants from its host. Raises BundleError."""
    engine = configured_engine()
    return frozenset(Instance(engine, compiled(engine, wasm), _NO_LIMIT).builtins)


class Runtime:
    """What all modules of a process share: wasmtime's engine, the epoch, limits, time and chance."""

    def __init__(
        self, *, eval_timeout: Seconds, memory_limit: int, clock: Clock, compiled_folder: Path | None = None
    ) -> None:
        """`memory_limit` in bytes for each instance; `compiled_folder` keeps machine code.

        Raises StartError where wasmtime is not a tested one.
        """
        ffi.check()
        self.memory_limit = memory_limit
        self.engine = configured_engine()
        self.modules = Modules(self.engine, compiled_folder)
        self.ticker = Ticker(self.engine, eval_timeout)
        self.ticks = ffi.ticks(self.ticker.ticks)
        self.ticks_at_once = ffi.ticks(min(ticks_in(BUDGET), self.ticker.ticks))
        self._clock = clock
        self._random = random.SystemRandom()

    def new_context(self) -> Context:
        """What built-ins of one evaluation share; the time stands still within it, as in OPA."""
        return Context(now_ns=self._clock.now_ns(), random=self._random)

    def close(self) -> None:
        """Stops the epoch; nothing may be evaluated afterwards."""
        self.ticker.close()


class WasmPolicy:
    """One module of a bundle, ready to be evaluated by any thread.

    `_idle` holds the instances that nobody uses; a thread takes the one that was used last, so that a sidecar which
    decides one request at a time pays for one instance. A failed one is dropped, the next evaluation makes another.
    `_closed` is set once, by the thread that replaces the policy; what is given back afterwards is freed.
    """

    def __init__(self, runtime: Runtime, wasm: bytes, data_json: bytes) -> None:
        """Compiles it and makes the first instance. Raises BundleError, naming built-ins that are missing."""
        self._runtime = runtime
        self._module = runtime.modules.module(wasm)
        self._data_json = data_json
        first = Instance(runtime.engine, self._module, runtime.memory_limit)
        self._entrypoints = first.entrypoints
        self._paces = {number: Pace() for number in first.entrypoints.values()}
        self.builtins = frozenset(first.builtins)
        self._resolved = resolve(self.builtins)
        try:
            first.load(self._resolved, runtime.new_context, data_json)
        except EvaluationError as error:
            first.close()
            raise BundleError(f"the data cannot be loaded: {error}") from error
        self._idle = deque([first])
        self._closed = False

    @property
    def instances(self) -> int:
        """How many evaluations can begin now without making an instance."""
        return len(self._idle)

    def warm(self, instances: int) -> None:
        """Makes instances until there are as many. Raises BundleError where one cannot be made."""
        try:
            while len(self._idle) < instances:
                self._idle.appendleft(self._new_instance())
        except EvaluationError as error:
            raise BundleError(f"the data cannot be loaded: {error}") from error

    def close(self) -> None:
        """Frees its instances at once, and those in use when their evaluation ends; it can still be evaluated."""
        self._closed = True
        self._free_idle()

    def entrypoint(self, name: str) -> int:
        """The module's own number for an entrypoint. Raises BundleError."""
        try:
            return self._entrypoints[name]
        except KeyError:
            raise BundleError(
                f"the module has no entrypoint {name!r}; it has {', '.join(sorted(self._entrypoints)) or 'none'}"
            ) from None

    def evaluate(self, entrypoint: int, input_json: bytes) -> bytes | None:
        """The result as JSON, None where it is undefined. Raises EvaluationError."""
        try:
            instance = self._idle.pop()
        except IndexError:
            instance = self._new_instance()
        began = time.thread_time()
        try:
            return self._evaluate(instance, entrypoint, input_json, self._runtime.ticks)
        finally:
            # A long input is never evaluated at once, and so does not tell of those that are.
            if len(input_json) <= _SHORT:
                self._paces[entrypoint].observe(time.thread_time() - began)

    def evaluate_nowait(self, entrypoint: int, input_json: bytes) -> bytes | None:
        """The same, within about 1 ms. Raises WouldWaitError where it would take longer, or there is no instance."""
        if len(input_json) > _SHORT:
            raise WouldWaitError("the input is long")
        pace = self._paces[entrypoint]
        if not pace.quick:
            raise WouldWaitError("the entrypoint is not a quick one")
        try:
            instance = self._idle.pop()
        except IndexError:
            raise WouldWaitError("all instances are in use") from None
        began = time.monotonic()
        try:
            result = self._evaluate(instance, entrypoint, input_json, self._runtime.ticks_at_once)
        except EvaluationTimeoutError:
            pace.suspect()
            raise WouldWaitError("the evaluation takes longer than its budget") from None
        # A built-in is not interrupted.
        if time.monotonic() - began > BUDGET:
            pace.suspect()
        return result

    def _evaluate(self, instance: Instance, entrypoint: int, input_json: bytes, ticks: ffi.Argument) -> bytes | None:
        began = time.monotonic()
        try:
            raw = instance.evaluate(entrypoint, input_json, ticks, self._runtime.ticker.want)
        except EvaluationError:
            # Its heap is in an unknown state.
            instance.close()
            raise
        if time.monotonic() - began > _QUICK and instance.growth() > _MOST_GROWTH:
            # WebAssembly memory never shrinks: kept, it would hold what this one needed until the process ends.
            instance.close()
        else:
            self._idle.append(instance)
            # Looked at after it was given back: `close` frees what it finds there after it has set this.
            if self._closed:
                self._free_idle()
        if raw.startswith(_RESULT):
            return raw[len(_RESULT) : -2]
        return None

    def _free_idle(self) -> None:
        while self._idle:
            try:
                instance = self._idle.pop()
            except IndexError:
                return
            instance.close()

    def _new_instance(self) -> Instance:
        instance = Instance(self._runtime.engine, self._module, self._runtime.memory_limit)
        try:
            instance.load(self._resolved, self._runtime.new_context, self._data_json)
        except EvaluationError:
            instance.close()
            raise
        return instance
