"""The built-in functions that OPA's compiler leaves to the host: one module per Rego namespace.

Each module has a `load` that returns its built-ins by name, and keeps what they remember between evaluations (compiled
expressions, parsed layouts) in what it returns. Semantics are OPA's, and so Go's, wherever Python's differ.
"""

from collections.abc import Iterable, Mapping
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

_NO_NETWORK: Final = "a network call has no place on a sidecar's hot path; load what it asks for as data"
_NO_GRAPHQL: Final = "GraphQL is not supported; parse it in the caller, and send what the policy needs as input"

_REFUSED: Final = {
    "graphql": _NO_GRAPHQL,
    "http.send": _NO_NETWORK,
    "net.lookup_ip_addr": _NO_NETWORK,
    "opa.runtime": "the process's environment has no place on a sidecar's hot path; load what it asks for as data",
    "rego.parse_module": "it takes a parser of Rego, which only OPA has; parse with `opa parse`, and load that as data",
}
"""Built-ins, and namespaces of them, that no module has, each with its reason."""

_PLACES: Final = {
    # Modules of the name of their namespace.
    **{name: name for name in (
        "base64url", "crypto", "glob", "graph", "hex", "json", "net", "numbers", "object", "providers", "rand", "regex",
        "semver", "strings", "time", "units", "uri", "urlquery", "uuid", "yaml",
    )},
    # Built-ins without a namespace.
    "sprintf": "strings",
    "indexof_n": "strings",
    "trace": "casts",
    **{f"cast_{kind}": "casts" for kind in ("array", "boolean", "null", "object", "set", "string")},
    # Apart from the rest of their namespace, for what that imports.
    "io.jwt": "jws",
    "crypto.x509": "x509",
    "crypto.parse_private_keys": "x509",
    "json.match_schema": "schema",
    "json.verify_schema": "schema",
    "regex.globs_match": "globs",
    "strings.render_template": "template",
    **dict.fromkeys(
        ("io.jwt.decode", "io.jwt.verify_hs256", "io.jwt.verify_hs384", "io.jwt.verify_hs512"), "jwt"
    ),
}  # fmt: skip
"""The module of each namespace, and of each built-in that is not in the one of its namespace."""


def resolve(names: Iterable[str]) -> dict[str, Builtin]:
    """The built-ins that a module imports; raises BundleError, which names every one that is not there."""
    loaded: dict[str, dict[str, Builtin]] = {}
    found: dict[str, Builtin] = {}
    problems: list[str] = []
    for name in sorted(set(names)):
        reason = _nearest(_REFUSED, name)
        module = _nearest(_PLACES, name)
        if reason is None and module is not None and module not in loaded:
            loaded[module] = import_module(f"{__name__}.{module}").load()
        if reason is not None:
            problems.append(f"{name} ({reason})")
        elif module is not None and name in loaded[module]:
            found[name] = loaded[module][name]
        else:
            problems.append(f"{name} (not implemented here)")
    if problems:
        raise BundleError(f"the policy calls built-ins that this engine does not have: {'; '.join(problems)}")
    return found


def _nearest(table: Mapping[str, str], name: str) -> str | None:
    """What the table has for the name, or for the innermost namespace around it."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return table.get(name)
