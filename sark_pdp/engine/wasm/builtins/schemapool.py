"""Where the parts of a JSON schema are: by their addresses, and by the ids that they give themselves."""

from typing import Final
from urllib.parse import urljoin

from sark_pdp.engine.wasm.builtins.base import BuiltinError
from sark_pdp.engine.wasm.builtins.gourl import parse_url
from sark_pdp.engine.wasm.builtins.schemanode import SchemaError
from sark_pdp.engine.wasm.values import LimitError
from sark_pdp.model import Json

_DRAFTS: Final = {f"http://json-schema.org/draft-0{draft}/schema": draft for draft in (4, 6, 7)}
_VALUES: Final = ("const", "enum")
_NAMED: Final = ("properties", "dependencies", "patternProperties")


def draft_of(document: Json) -> int | None:
    """The draft that a schema says it is of. Raises SchemaError where it is none."""
    if type(document) is bool:
        return None
    if type(document) is not dict:
        raise SchemaError("schema is invalid")
    url = document.get("$schema", "")
    if type(url) is not str:
        raise SchemaError("$schema must be of type string")
    parse_url(url)
    return _DRAFTS.get(url.removesuffix("#"))


class Pool:
    """Finds what a schema refers to within itself, by its address or by that of a part that has an id."""

    def __init__(self, document: Json) -> None:
        self._draft = draft_of(document)
        self._documents: dict[str, Json] = {}
        self._resolve(document, "")
        self._documents[""] = document

    def _resolve(self, part: Json, base: str) -> None:
        """Makes references absolute, and remembers ids."""
        if type(part) is list:
            for element in part:
                self._resolve(element, base)
        if type(part) is not dict:
            return
        identity = part.get("id" if "id" in part else "$id")
        if type(identity) is str and _is_url(identity):
            base = _joined(base, identity)
            if base in self._documents:
                raise SchemaError(f'Reference already exists: "{base}"')
            self._documents[base] = part
        if type(part.get("$ref")) is str and _is_url(part["$ref"]):
            part["$ref"] = _joined(base, part["$ref"])
        for key, below in part.items():
            if key not in _VALUES:
                # The keys of some are names, and no keywords.
                self._resolve(list(below.values()) if key in _NAMED and type(below) is dict else below, base)

    def found(self, reference: str) -> tuple[Json, int | None]:
        """What is referred to, with its draft."""
        if reference in self._documents:
            return self._documents[reference], self._draft
        base, _, _ = reference.partition("#")
        url = parse_url(reference)
        if base not in self._documents:
            if url.scheme != "file" and not (url.scheme and url.host):
                raise SchemaError(f"Reference {reference} must be canonical")
            raise LimitError("a JSON schema refers to another document, and none is fetched: put it into `definitions`")
        part = self._documents[base]
        for token in url.fragment[1:].split("/") if url.fragment.startswith("/") else ():
            part = _below(part, token)
        return part, self._draft


def _is_url(text: str) -> bool:
    try:
        parse_url(text)
    except BuiltinError:
        return False
    return True


def _joined(base: str, reference: str) -> str:
    base = base.partition("#")[0]
    if reference.startswith("#"):
        return (base + reference).removesuffix("#")
    # Go takes what is relative to nothing for a path from the root.
    return urljoin(base or "/", reference).removesuffix("#")


def _below(part: Json, token: str) -> Json:
    if type(part) is dict:
        key = token.replace("~1", "/").replace("~0", "~")
        if key not in part:
            raise SchemaError(f"Object has no key '{key}'")
        return part[key]
    if type(part) is not list:
        raise SchemaError(f"Invalid token reference '{token}'")
    if not token.removeprefix("-").isdecimal():
        raise SchemaError(f"Invalid array index '{token}'")
    if not 0 <= int(token) < len(part):
        raise SchemaError(f"Out of bound array[0,{len(part)}] index '{int(token)}'")
    return part[int(token)]
