"""Asks the decision point about calls and listings, for whatever carries them."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from sark_pdp.client import Answer, AsyncClient, Question
from sark_pdp.errors import InvalidRequestError
from sark_pdp.mcp.methods import LISTS, SESSION, Asked, Listed, Params, UnaskableError, questions
from sark_pdp.model import Json

REFUSED: Final = -32003
"""The code of a JSON-RPC error: the policy does not allow it."""
UNDECIDED: Final = -32004
"""The same where no decision could be had; asking again later may help."""

_MOST_AT_ONCE: Final = 1000
"""Entries in one question: what `limits.max_batch` allows by default."""
_MOST_SUBSCRIPTIONS: Final = 1000

_log = logging.getLogger(__name__)

Describe: TypeAlias = Callable[[str, str], Mapping[str, Json]]
"""Attributes of a tool, a resource or a prompt, by which of these it is and its name or URI."""


class Caller(Struct, frozen=True):
    """Who calls, as the application has authenticated it."""

    user: Mapping[str, Json]
    """The `user` of the policy's document: at least `id`."""
    context: Mapping[str, Json] | None = None
    """The `context` of the document."""
    request_id: str = ""
    """For the audit trail."""


class Refusal(Struct, frozen=True):
    """Why a call or a listing is not answered."""

    reason: str
    decision_id: str = ""
    """Empty where there is no decision."""
    policy_revision: str = ""
    code: int = REFUSED

    @property
    def message(self) -> str:
        """For the person who called."""
        return f"refused by policy: {self.reason}" if self.code == REFUSED else self.reason

    @property
    def data(self) -> dict[str, str]:
        """For the program that called."""
        said = {"reason": self.reason, "decision_id": self.decision_id, "policy_revision": self.policy_revision}
        return {key: value for key, value in said.items() if value}

    def error(self, call_id: str | int | None) -> dict[str, Json]:
        """A JSON-RPC answer to the call of this id."""
        error: dict[str, Json] = {"code": self.code, "message": self.message, "data": dict(self.data)}
        return {"jsonrpc": "2.0", "id": call_id, "error": error}


class Call(Struct, frozen=True):
    """A request or a notification."""

    method: str
    params: Params


class Filtered(Struct, frozen=True):
    """A call may go on, with these arguments in place of its own."""

    arguments: dict[str, Json]


Ruling: TypeAlias = Refusal | Filtered | None
"""What is to become of a call; None: it goes on as it is."""


class Guard:
    """Judges what a caller of an MCP server does, by the policies of a decision point. For one event loop."""

    def __init__(
        self,
        pdp: AsyncClient,
        *,
        server: Mapping[str, Json] | None = None,
        policy: str = "",
        actions: Mapping[str, str] | None = None,
        describe: Describe | None = None,
        also_allowed: Collection[str] = (),
        timeout: float | None = None,
    ) -> None:
        """`server` is that of the policy's document: the MCP server that is guarded.

        `actions` replaces names of actions, such as `{"tool:list": "tool:invoke"}` to show just what may be called.
        `describe` adds what the application knows of a tool, a resource or a prompt (`sensitivity_level`, `owner` …).
        `also_allowed` are methods that this module does not know and that need no decision; all others are refused.
        `policy` is the entrypoint (empty: the configured one), `timeout` that of a question in seconds.
        """
        self._pdp = pdp
        self._server = server
        self._policy = policy
        self._actions = dict(actions or {})
        self._describe = describe
        self._also_allowed = frozenset(also_allowed)
        self._timeout = timeout

    async def judge(self, caller: Caller, calls: Sequence[Call]) -> list[Ruling]:
        """What is to become of each call. One round trip for all; raises nothing but what `describe` does."""
        asked = [self._asked(call) for call in calls]
        wanted = [each for one in asked if isinstance(one, tuple) for each in one]
        try:
            answers = iter(await self._answers(caller, wanted))
        except InvalidRequestError as problem:
            _log.info("a call of MCP cannot be asked about", extra={"problem": str(problem)})
            unsaid = Refusal("the call has a value that a policy cannot be shown", code=UNDECIDED)
            return [one if isinstance(one, Refusal) else unsaid if one else None for one in asked]
        return [one if isinstance(one, Refusal) else _ruling([(each, next(answers)) for each in one]) for one in asked]

    async def shown(self, caller: Caller, key: str, entries: Sequence[Any]) -> list[Any] | Refusal:
        """Of the entries of a listing those that the caller may know of, in their order.

        `key` is that of the result (`tools`, `resources`, `resourceTemplates`, `prompts`). One round trip for each
        1,000 entries; an entry that has no name is not shown. Raises nothing but what `describe` does.
        """
        listed = LISTS[key]
        named = [(entry, name) for entry in entries if (name := _name(entry, listed)) is not None]
        shown: list[Any] = []
        for start in range(0, len(named), _MOST_AT_ONCE):
            part = named[start : start + _MOST_AT_ONCE]
            try:
                kept = await self._pdp.filter(
                    action=self._action(listed.action),
                    resources=[self._described(listed.field, listed.key, name) for _, name in part],
                    resource_field=listed.field,
                    user=caller.user,
                    server=self._server,
                    context=caller.context,
                    policy=self._policy,
                    request_id=caller.request_id,
                    timeout=self._timeout,
                )
            except InvalidRequestError as problem:
                _log.warning("a listing of MCP cannot be asked about", extra={"problem": str(problem)})
                return Refusal("the listing has a value that a policy cannot be shown", code=UNDECIDED)
            if kept.error is not None:
                _log.warning("a listing of MCP got no decision", extra={"error": kept.error})
                return Refusal(kept.answers[0].reason, code=UNDECIDED)
            shown += [part[index][0] for index in kept.allowed]
        return shown

    def _asked(self, call: Call) -> tuple[Asked, ...] | Refusal:
        if call.method in self._also_allowed and call.method not in SESSION:
            return ()
        try:
            asked = questions(call.method, call.params)
        except UnaskableError as problem:
            return Refusal(str(problem))
        if asked is None:
            return Refusal("the MCP method is not known")
        if len(asked) > _MOST_SUBSCRIPTIONS:
            return Refusal(f"more than {_MOST_SUBSCRIPTIONS} resources at once")
        return asked

    async def _answers(self, caller: Caller, wanted: Sequence[Asked]) -> Sequence[Answer]:
        asked = [Question(self._document(caller, each), self._policy, None, caller.request_id) for each in wanted]
        match asked:
            case []:
                return ()
            case [one]:
                answer = await self._pdp.check_input(
                    one.document, policy=one.policy, request_id=one.request_id, timeout=self._timeout
                )
                return (answer,)
            case _:
                return (await self._pdp.check_many(asked, timeout=self._timeout)).answers

    def _document(self, caller: Caller, asked: Asked) -> dict[str, Any]:
        document = {
            "user": caller.user,
            "action": self._action(asked.action),
            asked.field: self._described(asked.field, asked.key, asked.name),
            "server": self._server,
            "context": caller.context,
            "parameters": asked.parameters,
        }
        return {name: part for name, part in document.items() if part is not None}

    def _described(self, field: str, key: str, name: str) -> dict[str, Json]:
        known = {} if self._describe is None else self._describe(field, name)
        return {**known, key: name}

    def _action(self, action: str) -> str:
        return self._actions.get(action, action)


def _ruling(answered: Iterable[tuple[Asked, Answer]]) -> Ruling:
    for asked, answer in answered:
        if not answer.allow:
            if answer.error is not None:
                _log.warning("a call of MCP got no decision", extra={"error": answer.error})
            code = REFUSED if answer.error is None else UNDECIDED
            return Refusal(answer.reason, answer.decision_id, answer.policy_revision, code)
        filtered = answer.filtered_parameters
        if asked.takes_arguments and filtered is not None and filtered != asked.parameters:
            # There is one question where there are arguments.
            return Filtered(filtered)
    return None


def _name(entry: Any, listed: Listed) -> str | None:
    name = entry.get(listed.entry_key) if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) and name else None
