"""`uri.*`."""

from sark_pdp.engine.wasm.builtins.base import Builtin, BuiltinError, Context, string
from sark_pdp.engine.wasm.builtins.gourl import parse_url
from sark_pdp.model import Json


def load() -> dict[str, Builtin]:
    """The built-ins of this module."""
    return {"uri.is_valid": _is_valid, "uri.parse": _parse}


def _parse(_: Context, text: Json) -> dict[str, str]:
    url = parse_url(string(text))
    parts = {
        "scheme": url.scheme,
        "hostname": url.hostname,
        "port": url.port,
        "path": url.path,
        # There whenever there is a path: what looks at it should not have to ask.
        "raw_path": url.raw_path or url.path,
        "raw_query": url.raw_query,
        "fragment": url.fragment,
    }
    return {name: part for name, part in parts.items() if part}


def _is_valid(_: Context, text: Json) -> bool:
    if type(text) is not str or not text:
        return False
    try:
        parse_url(text)
    except BuiltinError:
        return False
    return True
