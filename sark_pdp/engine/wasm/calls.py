"""What a module asks of its host while it is evaluated: built-ins, and to be told that it aborted.

A call is expensive: wasmtime, ctypes and Python hand it on. So scalar operands are read where they lie, strings and
booleans are written without asking the module, and a call that is repeated within one evaluation is made once.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sark_pdp.engine.wasm import ffi, terms
from sark_pdp.engine.wasm.builtins import UNDEFINED, Builtin, BuiltinError, Context
from sark_pdp.engine.wasm.memory import Memory, Operand
from sark_pdp.errors import EvaluationError, EvaluationTimeoutError
from sark_pdp.model import Json

_SLOTS: Final = ffi.VALUE_SLOTS
_SCRATCH: Final = 4096
"""Bytes. What a built-in returns is longer only by exception."""
_ARENA: Final = 8192
"""Bytes for the short strings that built-ins return in one evaluation; the module allocates for the others."""
_SHORT_STRING: Final = 1024
_ALIGNMENT: Final = 8
_REMEMBERED: Final = 256
"""Calls of one evaluation."""
_LONGEST_REMEMBERED: Final = 16 * 1024
"""Bytes, or characters, of an operand."""
_NO_MEMORY: Final = "opa_malloc: failed"
"""What OPA's allocator aborts with where the memory cannot grow (wasm/src/malloc.c)."""
_PROBES: Final[Mapping[bytes, Operand]] = {
    b'"pr\xc3\xb6be"': "pröbe", b"-7": b"-7", b"true": b"true", b"false": b"false", b'["a", 1.5]': ("a", b"1.5"),
}  # fmt: skip

_Call = tuple[int, tuple[Operand, ...]]
"""The built-in's number and its operands."""


class HostCalls:
    """Answers the calls of one instance, for the thread that evaluates it.

    `_remembered`, `_context` and `_next` belong to the running evaluation and begin anew with each.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        """Why the instance is of no use, where that is known better than from the trap."""
        self.timed_out = False
        """Whether that is for want of time, which ran out while the module gave an operand or took a result."""
        self._remembered: dict[_Call, int | bytes] = {}
        self._context: Context | None = None
        self._operand: Callable[[int], Operand | None] = _no_operand
        self._next = self._arena = self._arena_end = 0
        self._true = self._false = 0

    def connect(
        self, memory: Memory, dump: Callable[[int], int], parse: Callable[[int, int], int], malloc: Callable[[int], int]
    ) -> None:
        """To the module's memory and its functions `opa_value_dump`, `opa_value_parse` and `opa_malloc`."""
        self._memory = memory
        self._dump = dump
        self._parse = parse
        self._malloc = malloc

    def load(self, builtins: Mapping[int, Builtin], new_context: Callable[[], Context]) -> None:
        """`builtins` by the module's numbers. Takes memory that each evaluation uses again."""
        self._builtins = builtins
        self._new_context = new_context
        if not builtins:
            return
        self._scratch = self._malloc(_SCRATCH)
        arena = self._malloc(_ARENA)
        # How values lie in memory is no part of OPA's ABI.
        if all(self._memory.operand(self._stored(text)) == operand for text, operand in _PROBES.items()):
            self._operand = self._memory.operand
        self._memory.write_boolean(arena, value=True)
        self._memory.write_boolean(arena + 2, value=False)
        self._memory.write_string(arena + _ALIGNMENT, "pröbe".encode())
        if [self._dumped(arena + at) for at in (0, 2, _ALIGNMENT)] == [b"true", b"false", '"pröbe"'.encode()]:
            self._true, self._false = arena, arena + 2
            self._arena, self._arena_end = arena + _ALIGNMENT, arena + _ARENA
        self.begin()

    def begin(self) -> None:
        """Before each evaluation."""
        self._context = None
        self._next = self._arena
        if self._remembered:
            self._remembered = {}

    def abort(self, _environment: Any, _caller: Any, values: Any, _length: int) -> int:
        """`opa_abort`, with the address of a message."""
        try:
            message = self._memory.text(values[0] & 0xFFFFFFFF).decode(errors="replace")
        except EvaluationError as error:
            message = str(error)
            self.timed_out = isinstance(error, EvaluationTimeoutError)
        if message == _NO_MEMORY:
            self.problem = "the policy needs more memory than limits.wasm_memory"
        else:
            self.problem = f"the policy aborted: {message}"
        return ffi.new_trap(self.problem)

    def call(self, _environment: Any, _caller: Any, values: Any, length: int) -> int:
        """`opa_builtinN`: the built-in's number, a context that is always 0, and the addresses of its operands."""
        # Nothing may escape from here: a Python exception cannot unwind through WASM.
        try:
            operands: list[Operand] = []
            for slot in range(2 * _SLOTS, length * _SLOTS, _SLOTS):
                address = values[slot] & 0xFFFFFFFF
                operand = self._operand(address)
                operands.append(self._dumped(address) if operand is None else operand)
            call = (values[0], tuple(operands))
            result = self._remembered.get(call)
            if result is None:
                result = self._called(call)
            values[0] = result if isinstance(result, int) else self._stored(result)
        except EvaluationError as error:
            # The module itself failed while it gave the operands or took the result, or a limit is reached.
            self.problem = str(error)
            self.timed_out = isinstance(error, EvaluationTimeoutError)
            return ffi.new_trap(self.problem)
        except BaseException as error:  # noqa: BLE001
            self.problem = f"a built-in failed: {type(error).__name__}"
            return ffi.new_trap(self.problem)
        return 0

    def _called(self, call: _Call) -> int | bytes:
        """The address of the result, 0 where there is none, or the text of a result that the module could change."""
        context = self._context
        if context is None:
            context = self._context = self._new_context()
        number, operands = call
        short = True
        try:
            values: list[Json] = []
            for operand in operands:
                if isinstance(operand, int):
                    values.append(operand)
                    continue
                short = short and len(operand) <= _LONGEST_REMEMBERED
                values.append(operand if isinstance(operand, str) else _value(operand))
            result = self._builtins[number](context, *values)
            found = 0 if result is UNDEFINED else self._given(result)
        except (BuiltinError, terms.TermError, UnicodeEncodeError):
            # Undefined, as in OPA without strict errors.
            found = 0
        if short and len(self._remembered) < _REMEMBERED:
            self._remembered[call] = found
        return found

    def _given(self, result: Json) -> int | bytes:
        kind = type(result)
        if kind is bool and self._true:
            return self._true if result else self._false
        if kind is str and len(result) <= _SHORT_STRING:
            raw = result.encode()
            if self._next + len(raw) + 2 * _ALIGNMENT <= self._arena_end:
                address = self._next
                taken = self._memory.write_string(address, raw)
                self._next = address + taken + -taken % _ALIGNMENT
                return address
        text = terms.dumps(result)
        return text if kind not in _SCALARS else self._stored(text)

    def _dumped(self, address: int) -> bytes:
        return self._memory.text(self._dump(address))

    def _stored(self, text: bytes) -> int:
        # The module copies what it keeps of the text.
        address = self._scratch if len(text) <= _SCRATCH else self._malloc(len(text))
        self._memory.write(address, text)
        return self._parse(address, len(text))


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def _value(operand: Operand) -> Json:
    if isinstance(operand, bytes):
        return terms.loads(operand)
    return [_value(element) for element in operand] if isinstance(operand, tuple) else operand


def _no_operand(_: int) -> None:
    return None
