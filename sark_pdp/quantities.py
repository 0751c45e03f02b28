"""Amounts of processor and memory as Kubernetes writes them: `250m`, `64Mi`.

Of what Kubernetes takes (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/) those forms
that people use for these two.
"""

import re
from typing import Final

CPU_EXPECTED: Final = "processors as in 250m or 1.5"
MEMORY_EXPECTED: Final = "bytes with Ki, Mi or Gi, as in 64Mi"

_CPU: Final = re.compile(r"([0-9]{1,6})m|([0-9]{1,4})(?:\.([0-9]{1,3}))?")
_MEMORY: Final = re.compile(r"([0-9]{1,9})(Ki|Mi|Gi)")
_UNITS: Final = {"Gi": 2**30, "Mi": 2**20, "Ki": 2**10}


def parse_cpu(text: str) -> int:
    """Thousandths of a processor, at least one. Raises ValueError with the end of a sentence."""
    match = _CPU.fullmatch(text)
    if not match:
        raise ValueError(f"is no number of processors; expected {CPU_EXPECTED}")
    thousandths, whole, part = match.groups()
    value = int(thousandths) if thousandths else int(whole) * 1000 + int((part or "").ljust(3, "0"))
    if not value:
        raise ValueError(f"is nothing; expected {CPU_EXPECTED}")
    return value


def parse_memory(text: str) -> int:
    """Bytes, at least one. Raises ValueError with the end of a sentence."""
    match = _MEMORY.fullmatch(text)
    if not match:
        raise ValueError(f"is no size; expected {MEMORY_EXPECTED}")
    value = int(match[1]) * _UNITS[match[2]]
    if not value:
        raise ValueError(f"is nothing; expected {MEMORY_EXPECTED}")
    return value


def format_memory(value: int) -> str:
    """Of whole Ki, in the largest unit that keeps the number whole; `parse_memory` gives the same value back."""
    unit, factor = next(((unit, factor) for unit, factor in _UNITS.items() if value % factor == 0), ("Ki", 2**10))
    return f"{value // factor}{unit}"
