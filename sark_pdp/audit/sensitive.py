"""Finds secrets in documents by the names of their fields: what is masked in every event, whatever is configured.

To look is paid for each event, so what a name means is remembered.
"""

import re
from collections.abc import Callable
from gc import is_tracked
from typing import Final
from urllib.parse import unquote_plus

from sark_pdp.model import Document, Json

# Every branch begins with a letter, few with the same: so `re` passes over all others, in a quarter of the time. passw,
# passphrase, passcode, pwd, secret, token, authorization, cookie, credential, bearer, connection string; jwt, assertion
# and dsn at the end of a word; key after access, account, api, auth, encryption, master, private, signing and ssh.
_NAMES: Final = re.compile(
    r"p(?:ass(?:w|phrase|code)|wd|rivate[-_. ]?key)"
    r"|s(?:ecret|(?:igning|sh)[-_. ]?key)"
    r"|a(?:uth(?:orization|[-_. ]?key)|ssertion\b|(?:ccess|ccount|pi)[-_. ]?key)"
    r"|c(?:ookie|redential|onnection[-_. ]?string)"
    r"|token|bearer|jwt\b|dsn\b|encryption[-_. ]?key|master[-_. ]?key"
)
_SIGNATURES: Final = re.compile(r"signature$|^sig$")
"""Of an address that is signed: whoever has it may use it."""
_TOKEN: Final = "token"  # noqa: S105
_ADDRESSES: Final = ("path", "url", "uri", "referer", "referrer", "location", "href", "link", "endpoint")
"""How the names of fields end whose text may have a query or a user in it."""
_BODIES: Final = frozenset({"body", "rawbody", "raw_body"})
"""Fields that hold a whole message as text."""
_TEXTS: Final = frozenset({"arguments", "json", "payload"})
"""Fields that may hold an object written as JSON."""
_LABELS: Final = frozenset({"field", "header", "key", "name"})
_VALUES: Final = frozenset({"value", "values", "rawvalue", "raw_value"})
"""A header or a variable may come as an object of its name and its value."""
_LONGEST_BODY: Final = 16 * 1024
_MOST_NAMES: Final = 4096
_LONGEST_NAME: Final = 64
_MOST_ADDRESSES: Final = 1024
_LONGEST_ADDRESS: Final = 256
_USER: Final = re.compile(r"(?<=//)[^/?#]+(?=@)")
_PARAMETERS: Final = re.compile(r"[?&;#]([^?&;=#]*)=")
_END: Final = re.compile(r"[&;#]|\Z")
"""Of the value of a parameter."""
_ESCAPES: Final = re.compile(r"\\u00([0-7][0-9a-fA-F])")

MASKED: Final = "(masked)"


class _Sentinel:
    """Says something that no value can."""


KEPT: Final = _Sentinel()
ERASED: Final = _Sentinel()

_Look = Callable[[str, Document], Json]
"""Looks at the field of this name; what it becomes: KEPT, ERASED, or the text to be written instead."""


class Secrets:
    """Tells fields that hold secrets. For one thread: it remembers the names that it saw."""

    __slots__ = ("_addresses", "_harmless", "_known", "_looks", "_parameters")

    def __init__(self) -> None:
        # Names of fields that may hold anything, and how to look at the others: at most _MOST_NAMES in each, of at
        # most _LONGEST_NAME characters.
        self._harmless: set[str] = set()
        self._looks: dict[str, _Look] = {}
        self._parameters: set[str] = set()
        """Of queries, harmless ones; bounded as the others are."""
        self._addresses: set[str] = set()
        """Harmless ones that had to be looked into: requests differ more than their paths do."""
        self._known = self._harmless.issuperset

    def none_in(self, document: Document) -> bool:
        """True where nothing in it would be masked."""
        known, harmless = self._known, self._harmless_fields
        if not known(document) and not harmless(document):
            return False
        # Grows while it is gone through: a call for each object would cost as much as all the rest.
        pending: list[Json] = [document]
        for container in pending:
            for value in container.values() if type(container) is dict else container:
                if type(value) is dict:
                    if not known(value) and not harmless(value):
                        return False
                    # The collector does not track an object that holds no container. It may track any.
                    if is_tracked(value):
                        pending.append(value)
                elif type(value) is list:
                    pending.append(value)
        return True

    def replacement(self, name: str, fields: Document) -> Json:
        """What the field of this name becomes: KEPT, ERASED, or the text to be written instead."""
        if name in self._harmless:
            return KEPT
        look = self._looks.get(name)
        if look is None:
            look = self._look_at(name)
            self._remember(name, look)
        return KEPT if look is None else look(name, fields)

    def _harmless_fields(self, fields: Document) -> bool:
        harmless, looks = self._harmless, self._looks
        for name in fields:
            if name in harmless:
                continue
            look = looks.get(name)
            if (self.replacement(name, fields) if look is None else look(name, fields)) is not KEPT:
                return False
        return True

    def _remember(self, name: str, look: _Look | None) -> None:
        if len(name) > _LONGEST_NAME:
            return
        if max(len(self._harmless), len(self._looks)) >= _MOST_NAMES:
            self._harmless.clear()
            self._looks.clear()
        if look is None:
            self._harmless.add(name)
        else:
            self._looks[name] = look

    def _look_at(self, name: str) -> _Look | None:
        """How to look at the field of this name; None where it is harmless whatever it holds."""
        lower = name.lower()
        if _is_secret(lower):
            return _secret
        if lower in _BODIES:
            return _body
        if lower in _VALUES:
            return _labelled
        if lower in _TEXTS:
            return _text
        return self._address if lower.endswith(_ADDRESSES) else None

    def _address(self, name: str, fields: Document) -> Json:
        value = fields[name]
        if type(value) is not str:
            return KEPT
        if not ("@" in value or "=" in value) or value in self._addresses:
            return KEPT
        changed = _USER.sub(MASKED, value) if "@" in value else value
        if "=" in changed and not self._harmless_parameters(_PARAMETERS.findall(changed)):
            changed = _without_parameters(changed)
        if changed != value:
            return changed
        if len(value) <= _LONGEST_ADDRESS:
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            self._addresses.add(value)
        return KEPT

    def _harmless_parameters(self, names: list[str]) -> bool:
        if self._parameters.issuperset(names):
            return True
        if any(map(_is_secret_parameter, names)):
            return False
        if len(self._parameters) + len(names) > _MOST_NAMES:
            self._parameters.clear()
        self._parameters.update(name for name in names[:_MOST_NAMES] if len(name) <= _LONGEST_NAME)
        return True


def _secret(name: str, fields: Document) -> Json:
    return KEPT if _is_count(name, fields[name]) else ERASED


def _body(name: str, fields: Document) -> Json:
    value = fields[name]
    if type(value) is not str or not value:
        return KEPT
    # What is encoded cannot be looked into.
    return ERASED if name.lower() != "body" or len(value) > _LONGEST_BODY or _tells_secrets(value) else KEPT


def _text(name: str, fields: Document) -> Json:
    value = fields[name]
    if type(value) is not str or not value.lstrip().startswith(("{", "[")):
        return KEPT
    return ERASED if len(value) > _LONGEST_BODY or _tells_secrets(value) else KEPT


def _labelled(name: str, fields: Document) -> Json:
    for other, label in fields.items():
        secret = type(label) is str and other.lower() in _LABELS and _is_secret(label)
        if secret and not _is_count(label, fields[name]):
            return ERASED
    return KEPT


def _without_parameters(address: str) -> str:
    """The address with the values of secret parameters replaced."""
    parts = []
    at = 0
    # Within a harmless value there may be another address, and its own parameters.
    while found := _PARAMETERS.search(address, at):
        parts.append(address[at : found.end()])
        at = found.end()
        if _is_secret_parameter(found[1]):
            end = _END.search(address, at)
            stop = end.start() if end else len(address)
            parts.append(MASKED if stop > at else "")
            at = stop
    return "".join((*parts, address[at:]))


def _is_secret_parameter(name: str) -> bool:
    decoded = unquote_plus(name).lower()
    return _is_secret(decoded) or _SIGNATURES.search(decoded) is not None


def _is_secret(name: str) -> bool:
    return _NAMES.search(name.lower()) is not None


def _is_count(name: str, value: Json) -> bool:
    """`max_tokens` is no secret, a number as a password is one."""
    return type(value) in {int, float, bool} and not _is_secret(name.lower().replace(_TOKEN, " "))


def _tells_secrets(text: str) -> bool:
    """Whether a message has such a word in it, written plainly or as forms and JSON may escape it."""
    plain = _ESCAPES.sub(lambda escape: chr(int(escape[1], 16)), text) if "\\u00" in text else text
    words = unquote_plus(plain).lower() if "%" in plain or "+" in plain else plain.lower()
    return _NAMES.search(words) is not None
