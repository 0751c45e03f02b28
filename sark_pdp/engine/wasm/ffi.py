"""The private names of wasmtime-py that the engine needs for speed; nothing else touches them.

wasmtime-py's public `Func.__call__` takes 10 to 15 µs, `Memory.data_ptr` and `data_len` the rest of 62 to 80 µs for one
evaluation. The C functions below, called with prepared arguments, take 0.3 to 1 µs each.
What runs a policy goes through `CDLL`, which releases the GIL: the thread that advances the epoch can run while a
policy loops. What returns at once keeps it: each release is a chance for a busy thread to take it for milliseconds.
"""

import ctypes
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import wasmtime
from wasmtime import _bindings, _ffi

from sark_pdp.errors import StartError

TESTED_VERSIONS: Final = ("50.0.1",)
"""With these the private names below were tested; `pyproject.toml` pins the same range."""

VALUE_SLOTS: Final = 4
"""A `wasmtime_val_raw_t` is 16 bytes: four `int32` slots, of which an i32 uses the first."""

Argument: TypeAlias = Any
"""What `from_param` and `byref` return: an argument that ctypes has converted and passes as it is, again and again."""

_dll = _ffi.dll
_keeping_gil = ctypes.PyDLL(_dll._name)

# Without argtypes ctypes takes prepared arguments as they are.
call_unchecked: Final = _dll["wasmtime_func_call_unchecked"]
"""(context, func, args_and_results, length, trap*) -> error or None."""
call_unchecked.restype = ctypes.c_void_p

set_epoch_deadline: Final = _keeping_gil["wasmtime_context_set_epoch_deadline"]
"""(context, ticks beyond the current epoch)."""
set_epoch_deadline.restype = None

memory_data: Final = _keeping_gil["wasmtime_memory_data"]
"""(context, memory*) -> address of its first byte."""
memory_data.restype = ctypes.c_void_p

memory_data_size: Final = _keeping_gil["wasmtime_memory_data_size"]
"""(context, memory*) -> bytes."""
memory_data_size.restype = ctypes.c_size_t

_trap_new: Final = _dll["wasmtime_trap_new"]
_trap_new.restype = ctypes.c_void_p

CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int32), ctypes.c_size_t
)
"""(environment, caller, args_and_results, length) -> trap or 0: what WASM calls for a host function."""


def check() -> None:
    """Raises StartError where this wasmtime is not one that the engine was tested with."""
    installed = version("wasmtime")
    if installed not in TESTED_VERSIONS:
        raise StartError(
            f"wasmtime {installed} is installed, but the engine was tested with "
            f"{', '.join(TESTED_VERSIONS)}: install sark-pdp with its lock file"
        )
    if ctypes.sizeof(_bindings.wasmtime_val_raw) != 4 * VALUE_SLOTS:
        raise StartError("wasmtime's raw values are not 16 bytes long: install sark-pdp with its lock file")


def context_pointer(store: wasmtime.Store) -> Argument:
    """The store's context; valid as long as the store lives."""
    return _pointer(ctypes.cast(store._context(), ctypes.c_void_p).value)


def function_pointer(function: wasmtime.Func) -> Argument:
    """The function's handle; valid as long as `function` lives."""
    return _pointer(ctypes.addressof(function._func))


def memory_pointer(memory: wasmtime.Memory) -> Argument:
    """The memory's handle; valid as long as `memory` lives."""
    return _pointer(ctypes.addressof(memory._memory))


def size(value: int) -> Argument:
    """A `size_t`."""
    return ctypes.c_size_t.from_param(value)


def ticks(value: int) -> Argument:
    """An `uint64_t`, as `set_epoch_deadline` takes it."""
    return ctypes.c_uint64.from_param(value)


def _pointer(address: int | None) -> Argument:
    return ctypes.c_void_p.from_param(address)


def new_trap(message: str) -> int:
    """A trap that a host function returns to end the evaluation; wasmtime frees it."""
    text = message.encode()
    trap: int = _trap_new(ctypes.c_char_p(text), ctypes.c_size_t(len(text)))
    return trap


def failure(error: int | None, trap: ctypes.c_void_p) -> wasmtime.Trap | wasmtime.WasmtimeError | None:
    """What a call of `call_unchecked` ended with, taken over from C; `trap` is empty afterwards."""
    if error:
        return wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(_bindings.wasmtime_error_t)))
    if trap.value:
        pointer = ctypes.cast(trap.value, ctypes.POINTER(_bindings.wasm_trap_t))
        trap.value = None
        return wasmtime.Trap._from_ptr(pointer)
    return None


def define_function(
    store: wasmtime.Store, parameters: int, results: int, callback: Callable[..., int]
) -> tuple[wasmtime.Func, Any]:
    """A host function of i32 values without wasmtime-py's wrapper around its arguments.

    Returns the function and the ctypes object of the callback, which must live as long as the store.
    """
    kind = wasmtime.FuncType([wasmtime.ValType.i32()] * parameters, [wasmtime.ValType.i32()] * results)
    raw = CALLBACK(callback)
    handle = _bindings.wasmtime_func_t()
    _dll["wasmtime_func_new_unchecked"](
        context_pointer(store),
        ctypes.cast(kind.ptr(), ctypes.c_void_p),
        raw,
        ctypes.c_void_p(None),
        ctypes.c_void_p(None),
        ctypes.byref(handle),
    )
    return wasmtime.Func._from_raw(handle), raw
