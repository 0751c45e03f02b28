"""What the methods of MCP ask of a policy, by their parameters; and what their results list. No I/O.

| method | action | named in |
|---|---|---|
| `tools/call` | `tool:invoke` | `tool.name` |
| `resources/read`, `…/subscribe`, `…/unsubscribe`, `subscriptions/listen` | `resource:read` | `resource.uri` |
| `prompts/get` | `prompt:get` | `prompt.name` |
| `completion/complete` | that of what it completes | |
| `tools/list`, `resources/list`, `resources/templates/list`, `prompts/list` | `…:list`, of each entry of the result | |

What is read of parameters must not be there in other capitals as well, or instead: some servers (all that use Go's
`encoding/json`) take `Name` for `name`, and of both the last.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct

Params: TypeAlias = Mapping[str, Any]


class Asked(Struct, frozen=True):
    """One thing that a call wants to use."""

    action: str
    field: str
    """Where the policy finds it: tool, resource or prompt."""
    key: str
    """What it is known by there: name or uri."""
    name: str
    parameters: Mapping[str, Any] | None = None
    """The arguments of the call."""
    takes_arguments: bool = False
    """Whether the policy may filter them, or put some where there are none."""


class Listed(Struct, frozen=True):
    """How the entries of a result are judged."""

    action: str
    field: str
    key: str
    entry_key: str
    """Where an entry of the result has its name or URI."""


class UnaskableError(Exception):
    """A call that does not say what it wants, in a sentence for its client."""


SESSION: Final = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
    }
)
"""Part of any session: whoever has a name may send them. What the listings answer is filtered."""

LISTS: Final[Mapping[str, Listed]] = {
    "tools": Listed("tool:list", "tool", "name", "name"),
    "resources": Listed("resource:list", "resource", "uri", "uri"),
    "resourceTemplates": Listed("resource:list", "resource", "uri", "uriTemplate"),
    "prompts": Listed("prompt:list", "prompt", "name", "name"),
}
"""By the key of a result that holds the entries."""

_READ: Final = frozenset({"name", "uri", "arguments", "ref", "type", "notifications", "resourceSubscriptions"})
"""All that is read of parameters."""
_READ_FOLDED: Final = frozenset(map(str.casefold, _READ))


def questions(method: str, params: Params) -> tuple[Asked, ...] | None:
    """What a call wants to use, all of which must be allowed; None for a method that nobody here knows.

    Raises UnaskableError.
    """
    if method in SESSION:
        return ()
    ask = _QUESTIONS.get(method)
    if ask is None:
        return None
    for read in (params, params.get("ref"), params.get("notifications")):
        if isinstance(read, Mapping):
            _spelled(read)
    return ask(params)


def _spelled(params: Params) -> None:
    for key in params.keys() - _READ:
        # Not `lower`: Go takes U+017F, the long s, for s and U+212A, the sign of kelvin, for k.
        if key.casefold() in _READ_FOLDED:
            raise UnaskableError("a parameter differs in capitals only from one that is judged")


def _tool(params: Params) -> tuple[Asked, ...]:
    return (Asked("tool:invoke", "tool", "name", _text(params, "name"), _arguments(params), takes_arguments=True),)


def _resource(params: Params) -> tuple[Asked, ...]:
    return (Asked("resource:read", "resource", "uri", _text(params, "uri")),)


def _prompt(params: Params) -> tuple[Asked, ...]:
    return (Asked("prompt:get", "prompt", "name", _text(params, "name"), _arguments(params), takes_arguments=True),)


def _completion(params: Params) -> tuple[Asked, ...]:
    reference = params.get("ref")
    if isinstance(reference, Mapping):
        match reference.get("type"):
            case "ref/prompt":
                return (Asked("prompt:get", "prompt", "name", _text(reference, "name")),)
            case "ref/resource":
                return _resource(reference)
    raise UnaskableError("ref does not say what is to be completed")


def _subscriptions(params: Params) -> tuple[Asked, ...]:
    wanted = params.get("notifications")
    uris = wanted.get("resourceSubscriptions") if isinstance(wanted, Mapping) else None
    if uris is None:
        return ()
    if not isinstance(uris, list):
        raise UnaskableError("resourceSubscriptions is not a list of URIs")
    return tuple(asked for uri in uris for asked in _resource({"uri": uri}))


_QUESTIONS: Final[Mapping[str, Callable[[Params], tuple[Asked, ...]]]] = {
    "tools/call": _tool,
    "resources/read": _resource,
    "resources/subscribe": _resource,
    "resources/unsubscribe": _resource,
    "subscriptions/listen": _subscriptions,
    "prompts/get": _prompt,
    "completion/complete": _completion,
}


def _text(params: Params, key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str) or not value:
        raise UnaskableError(f"{key} is missing or no text")
    return value


def _arguments(params: Params) -> Mapping[str, Any] | None:
    arguments = params.get("arguments")
    if arguments is None or isinstance(arguments, Mapping):
        return arguments
    raise UnaskableError("arguments is not an object")
