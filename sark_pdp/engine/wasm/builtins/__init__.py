"""The built-in functions that OPA's compiler leaves to the host: one module per Rego namespace.

Each module has a `load` that returns its built-ins by name, and keeps what they remember between evaluations (compiled
expressions, parsed layouts) in what it returns. Semantics are OPA's, and so Go's, wherever Python's differ.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Final

from sark_pdp.engine.wasm.builtins.base import UNDEFINED, Builtin, BuiltinError, Context
from sark_pdp.errors import BundleError

__all__ = ["NONDETERMINISTIC", "UNDEFINED", "Builtin", "BuiltinError", "Context", "resolve"]

NONDETERMINISTIC: Final = frozenset({
    "crypto.x509.parse_and_verify_certificates",
    "crypto.x509.parse_and_verify_certificates_with_options",
    "http.send",
    "io.jwt.decode_verify",
    "io.jwt.encode_sign",
    "io.jwt.encode_sign_raw",
    "json.match_schema",
    "json.verify_schema",
    "net.lookup_ip_addr",
    "opa.runtime",
    "rand.intn",
    "time.now_ns",
    "uuid.rfc4122",
})  # fmt: skip
"""Their results depend on more than their operands: those that OPA flags, and those that read the clock unflagged."""

_REFUSED: Final = {
    "http.send": "a network call has no place on a sidecar's hot path; load what it asks for as data",
    "net.lookup_ip_addr": "a network call has no place on a sidecar's hot path; load what it asks for as data",
    "opa.runtime": "the process's environment has no place on a sidecar's hot path; load what it asks for as data",
}

_MODULES: Final = frozenset({
    "base64url", "crypto", "glob", "hex", "json", "net", "numbers", "object", "rand", "regex", "semver", "strings",
    "time", "units", "urlquery", "uuid",
})  # fmt: skip
"""Those in this package, each of the name of its namespace."""

_BARE: Final = {"sprintf": "strings", "indexof_n": "strings"}
"""The module of built-ins that have no namespace."""


def resolve(names: Iterable[str]) -> dict[str, Builtin]:
    """The built-ins that a module imports; raises BundleError, which names every one that is not there."""
    loaded: dict[str, dict[str, Builtin]] = {}
    found: dict[str, Builtin] = {}
    problems: list[str] = []
    for name in sorted(set(names)):
        namespace = _BARE.get(name, name.partition(".")[0])
        if namespace in _MODULES and namespace not in loaded:
            loaded[namespace] = import_module(f"{__name__}.{namespace}").load()
        if name in _REFUSED:
            problems.append(f"{name} ({_REFUSED[name]})")
        elif name in loaded.get(namespace, {}):
            found[name] = loaded[namespace][name]
        else:
            problems.append(f"{name} (not implemented here)")
    if problems:
        raise BundleError(f"the policy calls built-ins that this engine does not have: {'; '.join(problems)}")
    return found
