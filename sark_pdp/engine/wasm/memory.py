"""A module's linear memory: bytes into it and out of it, and Rego's scalar values as they lie in it.

How values lie there is what OPA's `wasm/src/value.h` says: a byte for the type, and behind it what depends on the type.
It is no part of OPA's ABI, so whoever relies on it tries it out first (`HostCalls.load`).
"""

import ctypes
import struct
from struct import Struct
from typing import Final

import wasmtime

from sark_pdp.engine.wasm import ffi
from sark_pdp.engine.wasm.terms import MAX_TEXT, go_string
from sark_pdp.errors import EvaluationError

PAGE: Final = 65536

_SHORT: Final = 512
_STRIDE: Final = 8
_NUMBER, _ARRAY, _STATIC_STRING, _STATIC_BOOLEAN = 3, 5, 8, 9
_STRINGS, _BOOLEANS = (4, _STATIC_STRING), (2, _STATIC_BOOLEAN)
_INTEGER, _NUMERAL = 1, 2
_VALUE: Final = Struct("<BBxxIq")
"""Type; a boolean's value or a number's kind; a string's length or where an array's elements are; what comes next."""
_STRING_VALUE: Final = Struct("<BxxxII")
_ELEMENTS: Final = tuple(Struct(f"<{'xxxxI' * count}") for count in range(9))
"""The elements of an array, by their number, each behind its index; longer ones are not read here."""
_LOW: Final = (1 << 32) - 1
_CONSTANTS: Final = 1024
"""Strings of the module that are kept decoded."""
_SHORT_ELEMENT: Final = 1024

Scalar = str | int | bytes
"""A string, an integer of 64 bits, or another value as text for `terms.loads`."""
Operand = Scalar | tuple[Scalar, ...]
"""The same, or the elements of a short array; hashable."""


class Memory:
    """The memory of one instance, which never moves (Config.memory_may_move is off) and only grows."""

    __slots__ = (
        "_base",
        "_chars",
        "_constants",
        "_constants_end",
        "_context",
        "_memory",
        "_pointer",
        "_store",
        "_view",
        "size",
    )

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory = memory
        self._context = ffi.context_pointer(store)
        self._pointer = ffi.memory_pointer(memory)
        self._base: int = ffi.memory_data(self._context, self._pointer)
        self._constants: dict[int, str] = {}
        self._constants_end = 0
        self.measure()

    def measure(self) -> None:
        """Looks how large it is: the module grows it without saying so."""
        self.size: int = ffi.memory_data_size(self._context, self._pointer)
        # A slice of an array is bytes at once, a slice of a view can be assigned to: each is the faster for its way.
        self._chars = (ctypes.c_char * self.size).from_address(self._base)
        self._view = memoryview(self._chars).cast("B")

    def close(self) -> None:
        """Lets go of it; nothing may be read or written afterwards."""
        self._view.release()
        del self._chars

    def write(self, address: int, content: bytes) -> None:
        """Grows the memory where it is too small. Raises EvaluationError where it may not."""
        end = address + len(content)
        if end > self.size:
            self.measure()
            if end > self.size:
                self._grow(-(-(end - self.size) // PAGE))
        self._view[address:end] = content

    def _grow(self, pages: int) -> None:
        try:
            self._memory.grow(self._store, pages)
        except wasmtime.WasmtimeError as error:
            raise EvaluationError("the input or the data does not fit into limits.wasm_memory") from error
        self.measure()

    def _has_grown(self) -> bool:
        known = self.size
        self.measure()
        return self.size > known

    def text(self, address: int) -> bytes:
        """The NUL-terminated text at `address`."""
        # Most texts are short: a slice and a search take half of the time of `ctypes.string_at`, and are bounded.
        # Longer ones are read in strides: behind them may be all of the memory, which a slice would copy.
        text: bytes
        length = _SHORT
        while True:
            text, end, _ = self._chars[address : address + length].partition(b"\0")
            if end:
                return text
            if address + length < self.size:
                length *= _STRIDE
                continue
            if not self._has_grown():
                raise EvaluationError("the policy returned an address outside its memory")

    def operand(self, address: int) -> Operand | None:
        """The scalar or short array at `address`; None where another value is there, or one too long to look at."""
        known = self._constants.get(address)
        if known is not None:
            return known
        try:
            kind, detail, length, rest = _VALUE.unpack_from(self._view, address)
            if kind == _ARRAY:
                return self._array(length, rest & _LOW)
        except struct.error:
            # Behind what was measured, or at the very end of it.
            return self.operand(address) if self._has_grown() else None
        if kind in _STRINGS:
            return self._string(address, kind, rest & _LOW, length)
        if kind == _NUMBER:
            if detail == _INTEGER:
                integer: int = rest
                return integer
            return self._bytes(rest & _LOW, rest >> 32) if detail == _NUMERAL else None
        if kind in _BOOLEANS:
            return b"true" if detail else b"false"
        return None

    def keep_constants(self, end: int) -> None:
        """Strings below this address are the module's own, and never change."""
        self._constants_end = end

    def _string(self, address: int, kind: int, start: int, length: int) -> str | None:
        raw = self._bytes(start, length)
        if raw is None:
            return None
        text = _decoded(raw)
        if kind == _STATIC_STRING and address < self._constants_end and len(self._constants) < _CONSTANTS:
            self._constants[address] = text
        return text

    def _array(self, start: int, length: int) -> Operand | None:
        if length >= len(_ELEMENTS):
            return None
        elements: list[Scalar] = []
        for address in _ELEMENTS[length].unpack_from(self._view, start):
            element = self.operand(address)
            if element is None or isinstance(element, tuple):
                return None
            if not isinstance(element, int) and len(element) > _SHORT_ELEMENT:
                return None
            elements.append(element)
        return tuple(elements)

    def _bytes(self, address: int, length: int) -> bytes | None:
        end = address + length
        if end > self.size:
            self.measure()
        if end > self.size or not 0 <= length <= MAX_TEXT:
            return None
        raw: bytes = self._chars[address:end]
        return raw

    def write_string(self, address: int, raw: bytes) -> int:
        """A string value, of UTF-8, at `address`, where there must be room. Returns how many bytes it takes.

        The module takes it for one of its own constants, which it does not free.
        """
        start = address + _STRING_VALUE.size
        taken = _STRING_VALUE.size + len(raw)
        self._view[address : address + taken] = _STRING_VALUE.pack(_STATIC_STRING, len(raw), start) + raw
        return taken

    def write_boolean(self, address: int, value: bool) -> None:  # noqa: FBT001  # a value, and no option
        """A boolean value, of two bytes, of which the same holds."""
        self._view[address : address + 2] = bytes((_STATIC_BOOLEAN, value))


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        # A policy can make strings that are not UTF-8 (base64.decode).
        return go_string(raw)
