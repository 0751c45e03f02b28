"""One instance of an OPA module: the ABI as typed functions. Not thread-safe; `policy.py` lends it to one thread.

ABI 1.3 as OPA documents it (https://www.openpolicyagent.org/docs/wasm): the host provides the memory and the functions
`opa_abort` and `opa_builtin0` to `opa_builtin4`; `opa_eval` takes the address of the input and returns that of a text.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import wasmtime

from sark_pdp.engine.wasm import ffi
from sark_pdp.engine.wasm.builtins import Builtin, Context
from sark_pdp.engine.wasm.calls import HostCalls
from sark_pdp.engine.wasm.memory import PAGE, Memory
from sark_pdp.errors import BundleError, EvaluationError, EvaluationTimeoutError

ABI_MAJOR: Final = 1
ABI_MINOR: Final = 2
"""The lowest minor version that has `opa_eval`; the compiler emits 1.3."""

_SLOTS: Final = ffi.VALUE_SLOTS
_UNBOUNDED: Final = 1 << 62


class _Function:
    """An exported function of i32 arguments and at most one i32 result; its argument array is used again and again.

    Only `opa_eval` has more than two arguments: they are written into `slots`.
    """

    __slots__ = ("_context", "_failed", "_function", "_keep", "_length", "_pointer", "_trap", "_trap_pointer", "slots")

    def __init__(self, instance: "Instance", function: wasmtime.Func, arity: int) -> None:
        self.slots = (ctypes.c_int32 * (max(arity, 2) * _SLOTS))()
        self._keep = function
        self._failed = instance.failed
        self._context = instance.context
        self._function = ffi.function_pointer(function)
        self._pointer = ctypes.byref(self.slots)
        self._length = ffi.size(max(arity, 1))
        self._trap = ctypes.c_void_p()
        self._trap_pointer = ctypes.byref(self._trap)

    def __call__(self, first: int = 0, second: int = 0) -> int:
        """Raises EvaluationError where the module traps or aborts; the instance is of no use then."""
        self.slots[0] = first
        self.slots[_SLOTS] = second
        return self.call()

    def call(self) -> int:
        """The same with the arguments that `slots` holds already."""
        error = ffi.call_unchecked(self._context, self._function, self._pointer, self._length, self._trap_pointer)
        if error or self._trap:
            raise self._failed(ffi.failure(error, self._trap))
        return self.slots[0] & 0xFFFFFFFF


class Instance:
    """A module with its own memory and its own copy of the data."""

    def __init__(self, engine: wasmtime.Engine, module: wasmtime.Module, memory_limit: int) -> None:
        """`memory_limit` in bytes. Raises BundleError where this is no module of OPA's compiler."""
        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=memory_limit)
        self._store.set_epoch_deadline(_UNBOUNDED)
        self.context = ffi.context_pointer(self._store)
        self._calls = HostCalls()
        self._keep: list[Any] = []
        try:
            exports = self._instantiate(module)
            self._require_abi(exports)
            self._dump_json = self._function(exports, "opa_json_dump", 1)
            self._dump = self._function(exports, "opa_value_dump", 1)
            self._parse_json = self._function(exports, "opa_json_parse", 2)
            self._parse = self._function(exports, "opa_value_parse", 2)
            self._malloc = self._function(exports, "opa_malloc", 1)
            self._heap_pointer = self._function(exports, "opa_heap_ptr_get", 0)
            self._eval = self._function(exports, "opa_eval", 7)
            self.entrypoints: dict[str, int] = self._read_json(self._function(exports, "entrypoints", 0)())
            self.builtins: dict[str, int] = self._read_json(self._function(exports, "builtins", 0)())
        except (wasmtime.WasmtimeError, wasmtime.Trap, EvaluationError, KeyError) as error:
            raise BundleError(f"the module is not one of OPA's compiler: {error}") from error
        self._calls.connect(self._memory, self._dump, self._parse, self._malloc)
        self._heap = 0
        self._loaded_size = 0

    def load(self, builtins: Mapping[str, Builtin], new_context: Callable[[], Context], data_json: bytes) -> None:
        """Makes it ready to evaluate. Raises EvaluationError where the data does not fit into the memory."""
        self._memory.keep_constants(self._heap_pointer())
        address = self._malloc(len(data_json))
        self._memory.write(address, data_json)
        data = self._parse_json(address, len(data_json))
        if not data:
            raise EvaluationError("the data document is not JSON that OPA reads")
        self._eval.slots[2 * _SLOTS] = data
        self._calls.load({number: builtins[name] for name, number in self.builtins.items()}, new_context)
        # Everything above is given back by each evaluation, which begins its heap here.
        self._heap = self._heap_pointer()
        self._eval.slots[3 * _SLOTS] = self._heap
        self._memory.measure()
        self._loaded_size = self._memory.size

    def evaluate(
        self, entrypoint: int, input_json: bytes, ticks: ffi.Argument, want_ticks: Callable[[], None]
    ) -> bytes:
        """The result set as JSON: `[{"result":…}]`, or `[]` where it is undefined.

        `ticks` of the epoch is how long it may take, and `want_ticks` makes the epoch advance by as many. Raises
        EvaluationError; the instance is of no use then.
        """
        heap = self._heap
        length = len(input_json)
        self._memory.write(heap, input_json)
        self._calls.begin()
        slots = self._eval.slots
        slots[0] = 0
        slots[1 * _SLOTS] = entrypoint
        slots[4 * _SLOTS] = length
        slots[5 * _SLOTS] = heap + length
        ffi.set_epoch_deadline(self.context, ticks)
        # Not before: ticks that pass before the deadline is set do not count, and no more would come.
        want_ticks()
        return self._memory.text(self._eval.call())

    def growth(self) -> int:
        """Bytes by which its memory has grown since it was loaded."""
        self._memory.measure()
        return self._memory.size - self._loaded_size

    def close(self) -> None:
        """Gives its memory back at once; callbacks and functions refer to it in cycles."""
        self._memory.close()
        self._store.close()

    def failed(self, error: Exception | None) -> EvaluationError:
        """What a person is told about a failure of this instance."""
        if self._calls.problem is not None:
            # Who may not wait asks again where that is possible: to run out of time is no answer to him.
            kind = EvaluationTimeoutError if self._calls.timed_out else EvaluationError
            return kind(self._calls.problem)
        code = error.trap_code if isinstance(error, wasmtime.Trap) else None
        if code is wasmtime.TrapCode.INTERRUPT:
            return EvaluationTimeoutError("the policy ran longer than limits.eval_timeout")
        if code is wasmtime.TrapCode.STACK_OVERFLOW:
            return EvaluationError("the policy recurses too deeply")
        return EvaluationError("the policy trapped" + (f" ({code.name.lower()})" if code is not None else ""))

    def _instantiate(self, module: wasmtime.Module) -> Any:
        imports: list[Any] = []
        memory: wasmtime.Memory | None = None
        for wanted in module.imports:
            if isinstance(wanted.type, wasmtime.MemoryType):
                # The compiler states the minimum; a fixed one is too small for modules with inlined data.
                memory = self._new_memory(wanted.type)
                imports.append(memory)
            elif wanted.name == "opa_abort":
                imports.append(self._host_function(1, 0, self._calls.abort))
            elif isinstance(wanted.type, wasmtime.FuncType):
                imports.append(self._host_function(len(wanted.type.params), 1, self._calls.call))
        if memory is None:
            raise BundleError("the module is not one of OPA's compiler: it imports no memory")
        self._memory = Memory(self._store, memory)
        return wasmtime.Instance(self._store, module, imports).exports(self._store)

    def _new_memory(self, kind: wasmtime.MemoryType) -> wasmtime.Memory:
        try:
            return wasmtime.Memory(self._store, kind)
        except wasmtime.WasmtimeError as error:
            size = kind.limits.min * PAGE
            raise BundleError(f"the module itself takes {size} bytes, more than limits.wasm_memory") from error

    def _host_function(self, parameters: int, results: int, callback: Callable[..., int]) -> wasmtime.Func:
        function, raw = ffi.define_function(self._store, parameters, results, callback)
        self._keep.append(raw)
        return function

    def _function(self, exports: Any, name: str, arity: int) -> _Function:
        function = exports[name]
        # Calls are not checked: with another type they would read and write past their arguments.
        if not isinstance(function, wasmtime.Func) or not _has_type(function.type(self._store), arity):
            raise BundleError(f"the module is not one of OPA's compiler: {name} is not the function that it should be")
        return _Function(self, function, arity)

    def _require_abi(self, exports: Any) -> None:
        major = exports["opa_wasm_abi_version"].value(self._store)
        minor = exports["opa_wasm_abi_minor_version"].value(self._store)
        if major != ABI_MAJOR or minor < ABI_MINOR:
            raise BundleError(
                f"the module has version {major}.{minor} of OPA's ABI, but {ABI_MAJOR}.{ABI_MINOR} or a later minor "
                "one is needed: build it with a newer OPA"
            )

    def _read_json(self, value: int) -> Any:
        return msgspec.json.decode(self._memory.text(self._dump_json(value)))


def _has_type(kind: wasmtime.FuncType, arity: int) -> bool:
    i32 = wasmtime.ValType.i32()
    return [*kind.params] == [i32] * arity and [*kind.results] == [i32]
