"""Finds secrets in documents by the names of their fields: what is masked in every event, whatever is configured.

To look is paid for each event, so names that were found harmless are remembered.
"""

import re
from typing import Final
from urllib.parse import unquote_plus

from sark_pdp.model import Document, Json

_NAMES: Final = re.compile(
    r"passw|passphrase|passcode|secret|token|authorization|cookie|credential|bearer"
    r"|(access|account|api|auth|encryption|master|private|signing|ssh)[-_. ]?key"
)
_TOKEN: Final = "token"  # noqa: S105
_ADDRESSES: Final = frozenset({"path", ":path", "url", "uri", "referer", "location"})
"""Fields whose text may have a query in it."""
_BODIES: Final = frozenset({"body", "rawBody", "raw_body"})
"""Fields that hold a whole message as text."""
_LABELS: Final = ("key", "name")
_VALUES: Final = ("value", "rawValue", "raw_value")
"""A header or a variable may come as an object of its name and its value."""
_LONGEST_BODY: Final = 16 * 1024
_MOST_NAMES: Final = 4096
_LONGEST_NAME: Final = 64
_PAIRS: Final = re.compile(r"([?&;])([^?&;=#]*)=([^&;#]*)")

MASKED: Final = "(masked)"


class Secrets:
    """Tells fields that hold secrets. For one thread: it remembers the names that it saw."""

    __slots__ = ("_harmless", "_known")

    def __init__(self) -> None:
        # At most _MOST_NAMES of at most _LONGEST_NAME characters.
        self._harmless: set[str] = set()
        self._known = self._harmless.issuperset

    def none_in(self, document: Document) -> bool:
        """True where nothing in it would be masked."""
        known = self._known
        # Grows while it is gone through: a call for each object would cost as much as all the rest.
        pending: list[Json] = [document]
        for container in pending:
            if type(container) is dict:
                if not known(container) and not self._harmless_fields(container):
                    return False
                values: Json = container.values()
            else:
                values = container
            for value in values:
                kind = type(value)
                if kind is dict or kind is list:
                    pending.append(value)
        return True

    def _harmless_fields(self, fields: Document) -> bool:
        """The same of the fields themselves, one after the other; those that are harmless always are remembered."""
        for name in fields:
            if name in self._harmless:
                continue
            if replacement_of(name, fields) is not KEPT:
                return False
            if not (_is_secret(name) or name in _ADDRESSES or name in _BODIES or name in _VALUES):
                self._remember(name)
        return True

    def _remember(self, name: str) -> None:
        if len(name) > _LONGEST_NAME:
            return
        if len(self._harmless) >= _MOST_NAMES:
            self._harmless.clear()
        self._harmless.add(name)


class _Sentinel:
    """Says something that no value can."""


KEPT: Final = _Sentinel()
ERASED: Final = _Sentinel()


def replacement_of(name: str, fields: Document) -> Json:
    """What the field of this name becomes: KEPT, ERASED, or the text to be written instead."""
    value = fields[name]
    if _is_secret(name):
        # `max_tokens` is no secret.
        return KEPT if type(value) in {int, float, bool} and _TOKEN in name.lower() else ERASED
    if type(value) is not str:
        return KEPT
    if name in _ADDRESSES:
        return _without_secrets(value)
    if name in _BODIES:
        # What is encoded cannot be looked into.
        hidden = name != "body" or len(value) > _LONGEST_BODY or _NAMES.search(value.lower())
        return ERASED if value and hidden else KEPT
    if name in _VALUES:
        label = next((fields[label] for label in _LABELS if type(fields.get(label)) is str), "")
        return ERASED if _is_secret(label) else KEPT
    return KEPT


def _is_secret(name: str) -> bool:
    return _NAMES.search(name.lower()) is not None


def _without_secrets(address: str) -> Json:
    """The address with the values of secret parameters replaced; KEPT where there is none."""
    if "=" not in address:
        return KEPT

    def masked(pair: re.Match[str]) -> str:
        separator, name, value = pair.groups()
        return f"{separator}{name}={MASKED}" if value and _is_secret(unquote_plus(name)) else pair[0]

    changed = _PAIRS.sub(masked, address)
    return KEPT if changed == address else changed
