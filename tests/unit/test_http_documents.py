"""The documents that bodies of HTTP become: SARK's flat names, its gateway's, AuthZEN's."""

from typing import Any

import pytest

from sark_pdp.errors import InvalidRequestError
from sark_pdp.transport.http.authzen import document_of
from sark_pdp.transport.http.gateway import Authorize, AuthorizeAgent
from sark_pdp.transport.http.policy import spelled_out

NOBODY: Any = None
"""Documents are made without asking."""

SPELLED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"user_id": "bob"}, {"user": {"id": "bob"}}),
    ({"user_id": "bob", "user": {"roles": ["a"]}}, {"user": {"id": "bob", "roles": ["a"]}}),
    ({"user_id": "bob", "user": {"id": "bob"}}, {"user": {"id": "bob"}}),
    ({"user_id": None, "tool": None, "user": None}, {"tool": None, "user": None}),
    ({"user_id": "bob", "user": None}, {"user": {"id": "bob"}}),
    ({"tool": "search"}, {"tool": {"name": "search"}}),
    ({"server": "code"}, {"server": {"name": "code"}}),
    ({"server_id": "s1", "server": "code"}, {"server": {"name": "code", "id": "s1"}}),
    ({"tool": {"name": "search", "owner": "bob"}}, {"tool": {"name": "search", "owner": "bob"}}),
    ({"tool": ["search"], "context": 3, "any": [1]}, {"tool": ["search"], "context": 3, "any": [1]}),
]


@pytest.mark.parametrize(("body", "document"), SPELLED)
def test_flat_names_become_objects(body: dict[str, Any], document: dict[str, Any]) -> None:
    """All else stays as it is: it is up to the policy."""
    assert spelled_out(body) == document


AUTHORIZED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"action": "gateway:server:list"},
        {
            "action": "gateway:server:list",
            "parameters": {},
            "context": {},
            "resource": {"server": None, "tool": None, "sensitivity": "medium"},
        },
    ),
    (
        {
            "action": "gateway:tool:invoke",
            "server_name": "postgres",
            "tool_name": "execute_query",
            "sensitivity_level": "high",
            "parameters": {"query": "SELECT 1"},
            "user": {"id": "alice"},
            "gateway_metadata": {"source_ip": "10.0.1.5"},
        },
        {
            "action": "gateway:tool:invoke",
            "server_name": "postgres",
            "tool_name": "execute_query",
            "sensitivity_level": "high",
            "parameters": {"query": "SELECT 1"},
            "user": {"id": "alice"},
            "gateway_metadata": {"source_ip": "10.0.1.5"},
            "context": {},
            "resource": {"server": "postgres", "tool": "execute_query", "sensitivity": "high"},
            "tool": {"name": "execute_query", "sensitivity_level": "high"},
            "server": {"name": "postgres"},
        },
    ),
]


@pytest.mark.parametrize(("body", "document"), AUTHORIZED)
def test_the_gateways_names_are_there_flat_and_nested(body: dict[str, Any], document: dict[str, Any]) -> None:
    """SARK's policies read the one, the default ones the other."""
    assert Authorize(NOBODY, None)._document(body) == document


AGENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"source_agent_id": "a", "target_agent_id": "b", "capability": "query", "target_environment": "test"},
        {
            "action": "agent:query",
            "source_agent": {"id": "a"},
            "target_agent": {"id": "b", "environment": "test"},
            "context": {"capability": "query"},
        },
    ),
    (
        {
            "action": "agent:delegate",
            "source_agent": {"id": "a", "trust_level": "trusted"},
            "target_agent": {"id": "b"},
            "context": {"capability": "search"},
            "capability": "execute",
        },
        {
            "action": "agent:delegate",
            "source_agent": {"id": "a", "trust_level": "trusted"},
            "target_agent": {"id": "b"},
            "context": {"capability": "search"},
        },
    ),
    (
        {"source_agent_id": "a", "source_agent": {"capabilities": []}, "target_agent_id": "b", "capability": "execute"},
        {
            "action": "agent:invoke",
            "source_agent": {"id": "a", "capabilities": []},
            "target_agent": {"id": "b"},
            "context": {"capability": "execute"},
        },
    ),
]


@pytest.mark.parametrize(("body", "document"), AGENTS)
def test_agents_may_be_named_by_their_ids_alone(body: dict[str, Any], document: dict[str, Any]) -> None:
    made = AuthorizeAgent(NOBODY, None)._document(body)
    assert {name: made[name] for name in document} == document
    assert made["parameters"] == {}
    assert made["capability"] == body["capability"]


GATEWAY_REFUSED: list[tuple[type[Any], dict[str, Any], str]] = [
    (Authorize, {}, "action: is missing"),
    (Authorize, {"action": ""}, "action: is empty"),
    (Authorize, {"action": "a", "tool_name": 3}, "tool_name: not a text"),
    (Authorize, {"action": "a", "parameters": []}, "parameters: not a JSON object"),
    (Authorize, {"action": "a", "tool_name": "x", "tool": {"name": "y"}}, "tool_name: says otherwise than tool.name"),
    (AuthorizeAgent, {"source_agent_id": "a", "target_agent_id": "b"}, "capability: is missing"),
    (
        AuthorizeAgent,
        {"source_agent_id": "a", "target_agent_id": "b", "capability": "fly"},
        "capability: must be one of execute, query, delegate",
    ),
    (AuthorizeAgent, {"target_agent_id": "b", "capability": "query"}, "source_agent_id: is missing"),
    (
        AuthorizeAgent,
        {"source_agent_id": "a", "source_agent": {"id": "b"}, "target_agent_id": "b", "capability": "query"},
        "source_agent_id: says otherwise than source_agent.id",
    ),
]


@pytest.mark.parametrize(("endpoint", "body", "message"), GATEWAY_REFUSED)
def test_what_the_gateway_must_say_is_asked_for(endpoint: Any, body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        endpoint(NOBODY, None)._document(body)
    assert str(refused.value) == message


BOB = {"type": "user", "id": "bob", "properties": {"roles": ["developer"], "id": "root"}}
EVALUATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"subject": BOB, "action": {"name": "tool:invoke"}, "resource": {"type": "tool", "id": "search"}},
        {
            "user": {"id": "bob", "roles": ["developer"]},
            "action": "tool:invoke",
            "tool": {"name": "search", "id": "search"},
        },
    ),
    (
        {
            "subject": {"type": "user", "id": "bob"},
            "action": {"name": "tool:invoke"},
            "resource": {"type": "tool", "id": "drop", "properties": {"name": "search", "id": "search"}},
        },
        {"user": {"id": "bob"}, "action": "tool:invoke", "tool": {"name": "drop", "id": "drop"}},
    ),
    (
        {
            "subject": {"type": "agent", "id": "a", "properties": {"trust_level": "trusted"}},
            "action": {"name": "agent:query", "properties": {"q": 1}},
            "resource": {"type": "agent", "id": "b"},
            "context": {"capability": "search"},
        },
        {
            "source_agent": {"id": "a", "trust_level": "trusted"},
            "target_agent": {"id": "b"},
            "action": "agent:query",
            "parameters": {"q": 1},
            "context": {"capability": "search"},
        },
    ),
    (
        {
            "subject": {"type": "user", "id": "bob"},
            "action": {"name": "server:register"},
            "resource": {"type": "server", "id": "s1", "properties": {"name": "code", "environment": "test"}},
        },
        {
            "user": {"id": "bob"},
            "action": "server:register",
            "server": {"id": "s1", "name": "code", "environment": "test"},
        },
    ),
    (
        {
            "subject": {"type": "user", "id": "bob"},
            "action": {"name": "can_read"},
            "resource": {"type": "document", "id": "1"},
            "evaluations": "is no part",
        },
        {"user": {"id": "bob"}, "action": "can_read"},
    ),
]


@pytest.mark.parametrize(("stated", "document"), EVALUATED)
def test_an_authzen_evaluation_is_there_as_stated_and_where_policies_look(
    stated: dict[str, Any], document: dict[str, Any]
) -> None:
    """Properties cannot say that somebody is another one."""
    parts = {part: stated[part] for part in ("subject", "resource")}
    assert document_of(stated) == {**parts, **document}


EVALUATIONS_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "subject: is missing"),
    ({"subject": 3}, "subject: not a JSON object"),
    ({"subject": {"id": "b"}}, "subject.type: is missing"),
    ({"subject": {"type": "user"}}, "subject.id: is missing"),
    ({"subject": {"type": "user", "id": 3}}, "subject.id: not a text"),
    ({"subject": BOB, "resource": {"type": "tool", "id": "x"}}, "action.name: is missing"),
    ({"subject": BOB, "resource": {"type": "tool", "id": "x"}, "action": "read"}, "action: not a JSON object"),
    (
        {"subject": BOB, "resource": {"type": "tool", "id": "x", "properties": 3}, "action": {"name": "a"}},
        "resource.properties: not a JSON object",
    ),
]


@pytest.mark.parametrize(("stated", "message"), EVALUATIONS_REFUSED)
def test_what_an_evaluation_must_say_is_asked_for(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        document_of(stated)
    assert str(refused.value) == message
