"""The attributes of a request: what it names, what the registry says of it, how old that may be."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sark_pdp.attributes import decider as decider_module
from sark_pdp.attributes import resolution, tiers
from sark_pdp.attributes.entries import Shared
from sark_pdp.errors import AttributesError, EvaluationError
from sark_pdp.interfaces import Answered
from sark_pdp.model import Decision, Document, Outcome, Request, Seconds, Tier, Verdict
from sark_pdp.projection import Projection
from tests.fix_attributes import Above, DictStore, FakeRegistry
from tests.fix_audit import FakeEntrypoint, new_id
from tests.fix_engine import a_question

NEVER = Seconds(0.0)
WHOLE = FakeEntrypoint(Projection([()]))

ALICE = {"id": "alice", "email": "alice@x", "roles": ["developer"], "teams": ["t1"], "active": True}
FILES = {"id": "s1", "name": "files", "environment": "production", "sensitivity_level": "high", "status": "active"}
MAIL = {"id": "s2", "name": "mail", "environment": "test"}
READ = {"id": "t1", "server_id": "s1", "name": "read", "sensitivity_level": "low", "active": True}
SEND = {"id": "t2", "server_id": "s2", "name": "send"}
LOST = {"id": "t3", "name": "lost"}
A_USER = {**ALICE, "status": "active"}
A_TOOL = {**READ, "status": "active"}


def a_registry() -> FakeRegistry:
    return FakeRegistry(
        user=[ALICE, {"id": "bob", "active": False}, {"id": "twin", "role": "a"}, {"id": "twin", "role": "b"}],
        server=[FILES, MAIL, {"id": "s3", "name": "twins"}, {"id": "s4", "name": "twins"}],
        tool=[
            READ,
            SEND,
            LOST,
            {"id": "t4", "server_id": "gone", "name": "x"},
            {"id": "t5", "name": "x", "active": False},
        ],
    )


class Below:
    """Decides at once, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.verdict = Verdict(Outcome.ALLOW, "because")
        self.at_once = True

    def decide(self, request: Request) -> Decision:
        self.asked.append(request)
        projected = request.projected
        if projected is None:
            projected = request.entrypoint.projection.project(request.document)
        return Decision(new_id(), self.verdict, Tier.EVALUATED, projected, Seconds(0.0), Seconds(9.0))

    def decide_nowait(self, request: Request) -> Decision | None:
        return self.decide(request) if self.at_once else None

    def decide_many(self, requests: Sequence[Request]) -> list[Answered]:
        return [self.decide(request) for request in requests]


class Time:
    """Both clocks, which go together."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    for module in (tiers, resolution, decider_module):
        monkeypatch.setattr(module, "time", made)
    return made


def asked(document: Document, **fields: Any) -> Request:
    return a_question(WHOLE, document, **fields)


# What comes in, and the document that is decided on.
COMPLETED: list[tuple[Document, Document]] = [
    ({"user": {"id": "alice"}}, {"user": A_USER}),
    (
        {
            "user": {"id": "alice", "roles": ["admin"], "status": "odd", "team_ids": ["t9"], "mfa_verified": True},
            "x": 1,
        },
        {"user": {**A_USER, "mfa_verified": True}, "x": 1},
    ),
    ({"user": {"id": "alice", "permissions": ["*"]}}, {"user": A_USER}),
    ({"tool": {"id": "t1", "sensitivity_level": "none", "name": "other"}}, {"tool": A_TOOL, "server": FILES}),
    ({"tool": {"name": "read"}, "server": {"id": "s1", "environment": "test"}}, {"tool": A_TOOL, "server": FILES}),
    ({"tool": {"name": "read"}, "server": {"name": "files"}}, {"tool": A_TOOL, "server": FILES}),
    ({"tool": {"name": "read", "server_id": "s1"}}, {"tool": A_TOOL, "server": FILES}),
    (
        {"tool_name": "read", "server_name": "files", "parameters": {"a": 1}},
        {"tool_name": "read", "server_name": "files", "parameters": {"a": 1}, "tool": A_TOOL, "server": FILES},
    ),
    ({"server": {"id": "s2", "sensitivity_level": "low", "tags": []}}, {"server": {**MAIL, "tags": []}}),
    ({"server": {"name": "mail"}}, {"server": MAIL}),
    ({"server_name": "mail"}, {"server_name": "mail", "server": MAIL}),
    ({"tool": {"id": "t3"}, "server": {"environment": "test", "x": 1}}, {"tool": LOST, "server": {"x": 1}}),
    (
        {"action": "server:register", "user": {"id": "alice"}, "server": {"name": "new", "environment": "test"}},
        {"action": "server:register", "user": A_USER, "server": {"name": "new", "environment": "test"}},
    ),
    ({"user": "alice", "tool": ["read"]}, {"user": "alice", "tool": ["read"]}),
    ({"attributes": {"request": {}}, "parsed_path": []}, {"attributes": {"request": {}}, "parsed_path": []}),
    ({"source_agent": {"id": "a"}, "action": "agent:invoke"}, {"source_agent": {"id": "a"}, "action": "agent:invoke"}),
    ({"user": None, "tool": None}, {"user": None, "tool": None}),
    ({}, {}),
]

NO_SERVER = "the request tells neither an id nor a name of its server that the registry could know"
NO_TOOL = "the request tells neither an id of its tool nor a name and a server that the registry could know"

REFUSED: list[tuple[Document, str]] = [
    ({"user": {"id": "carol"}}, "the user is not in the registry"),
    ({"user": {"id": "bob"}}, "the user is not active"),
    ({"user": {"id": "twin"}}, "the user is in the registry more than once"),
    ({"user": {"roles": ["admin"]}}, "the request tells no id of its user that the registry could know"),
    ({"user": {"id": 7}}, "the request tells no id of its user that the registry could know"),
    ({"user": {"id": "a\0"}}, "the request tells no id of its user that the registry could know"),
    ({"user": {"id": "a" * 513}}, "the request tells no id of its user that the registry could know"),
    ({"tool": {"id": "t9"}}, "the tool is not in the registry"),
    ({"tool": {"id": "t5"}}, "the tool is not active"),
    ({"tool": {"name": "send"}, "server": {"id": "s1"}}, "the tool is not in the registry"),
    ({"tool_name": "read", "server_name": "mail"}, "the tool is not in the registry"),
    ({"tool": {"id": "t4"}}, "the server is not in the registry"),
    ({"server": {"id": "s9"}}, "the server is not in the registry"),
    ({"server_name": "twins"}, "the server is in the registry more than once"),
    ({"tool": {"id": "t1"}, "server": {"id": "s2"}}, "the tool is not on the server that the request names"),
    ({"tool": {"id": "t1"}, "server": {"name": "mail"}}, "the tool is not on the server that the request names"),
    ({"tool": {"id": "t1"}, "server_name": "mail"}, "the tool is not on the server that the request names"),
    ({"tool": {"id": "t1"}, "tool_name": "send"}, "the request names two tools"),
    ({"server": {"id": "s1"}, "server_name": "mail"}, "the request names two servers"),
    ({"server": {"environment": "test"}}, NO_SERVER),
    ({"tool": {"name": "read"}}, NO_TOOL),
    ({"tool_name": 7, "server_name": "files"}, NO_TOOL),
]


@pytest.mark.parametrize(("document", "wanted"), COMPLETED)
def test_the_registry_speaks_for_its_fields_and_the_caller_for_the_rest(document: Document, wanted: Document) -> None:
    below, above = Below(), Above(a_registry())
    before = repr(document)
    # Twice: of a server that is known by name alone, the second asks by the id that the first found.
    for _ in range(2):
        above.decider(below).decide(asked(document))
        assert below.asked.pop().document == wanted
    inline = above.decider(below).decide_nowait(asked(document))
    if inline is None:
        # What was found by a name is kept once it was looked up by its id.
        above.decider(below).decide(asked(document))
        below.asked.clear()
        assert above.decider(below).decide_nowait(asked(document)) is not None
    assert below.asked.pop().document == wanted
    assert repr(document) == before


@pytest.mark.parametrize(("document", "reason"), REFUSED)
def test_what_the_registry_does_not_know_is_denied_with_the_reason(document: Document, reason: str) -> None:
    below, above = Below(), Above(a_registry())
    decider = above.decider(below)
    for answer in (
        decider.decide(asked(document)),
        *decider.decide_many([asked(document)]),
        decider.decide(asked(document)),
        decider.decide_nowait(asked(document)),
    ):
        assert isinstance(answer, Decision)
        assert (answer.verdict.outcome, answer.verdict.reason, answer.reusable) == (Outcome.DENY, reason, NEVER)
    assert not below.asked


@pytest.mark.parametrize("document", [document for document, _ in COMPLETED])
def test_a_trusted_caller_is_believed_and_completed(document: Document) -> None:
    below = Below()
    Above(a_registry()).decider(below, trust_caller=True).decide(asked(document))
    made = below.asked.pop().document
    for name, value in document.items():
        assert {**made[name], **value} == made[name] if isinstance(value, dict) else made[name] == value


_TEXT = st.sampled_from(["alice", "bob", "s1", "s2", "t1", "t3", "read", "send", "files", "mail", "", "x"])
_VALUE = st.one_of(st.none(), _TEXT, st.integers(0, 3), st.lists(_TEXT, max_size=2))
_SECTION = st.one_of(
    _VALUE,
    st.dictionaries(
        st.sampled_from(
            ["id", "name", "server_id", "roles", "role", "sensitivity_level", "environment", "status", "z"]
        ),
        _VALUE,
        max_size=4,
    ),
)
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("user", "tool", "server"), _SECTION),
        **dict.fromkeys(("tool_name", "server_name"), _VALUE),
        "action": st.sampled_from(["tool:invoke", "server:register"]),
    },
)


@given(st.lists(_DOCUMENTS, max_size=6))
def test_inline_alone_and_together_come_to_the_same(documents: list[Document]) -> None:
    """Whatever is asked: with nothing known, with all in memory, inline, and many at a time."""

    def told(answer: Answered | None) -> Any:
        assert isinstance(answer, Decision)
        return answer.verdict.outcome, answer.verdict.reason, answer.projected

    each = [Above(a_registry()).decider(Below()).decide(asked(document)) for document in documents]
    wanted = [told(answer) for answer in each]
    decider = Above(a_registry()).decider(Below())
    for _ in range(2):
        assert [told(answer) for answer in decider.decide_many([asked(it) for it in documents])] == wanted
    for document, of_it in zip(documents, wanted, strict=True):
        assert told(decider.decide(asked(document))) == of_it
        inline = decider.decide_nowait(asked(document))
        assert inline is None or told(inline) == of_it


_PATHS = st.sampled_from(
    [
        *(("user",), ("user", "id"), ("user", "roles"), ("user", "z"), ("user", "role"), ("tool",), ("tool", "name")),
        *(("tool", "z"), ("server", "environment"), ("server",), ("server", "status"), ("server", "z"), ("action",)),
        *(("tool_name",), ("server", "id", "x"), ()),
    ]
)


@given(_DOCUMENTS, st.sets(_PATHS, min_size=1, max_size=6))
def test_what_is_remembered_of_a_request_comes_to_the_same_as_completing_its_document(
    document: Document, paths: set[tuple[str, ...]]
) -> None:
    decider = Above(a_registry()).decider(Below())
    question = a_question(FakeEntrypoint(Projection(paths)), document)
    before = repr(document)
    wanted = decider.decide(question)
    decider.decide(question)
    for _ in range(3):
        inline = decider.decide_nowait(question)
        if inline is not None:
            assert inline.projected == wanted.projected
            assert inline.verdict == wanted.verdict
    assert repr(document) == before


@given(_DOCUMENTS)
def test_no_document_gets_a_field_of_the_registry_from_its_caller(document: Document) -> None:
    below = Below()
    Above(a_registry()).decider(below).decide(asked(document))
    for request in below.asked:
        made = request.document
        rows = {"user": (A_USER,), "tool": (A_TOOL, SEND, LOST), "server": (FILES, MAIL, {})}
        for section, known in rows.items():
            if type(made.get(section)) is dict and not (
                section == "server" and document.get("action") == "server:register"
            ):
                owned = {name: value for name, value in made[section].items() if name != "z"}
                assert owned in known, made


def test_a_batch_reads_each_table_once_and_fails_one_by_one() -> None:
    registry, below = a_registry(), Below()
    documents: list[Document] = [
        {"user": {"id": "alice"}, "tool": {"id": "t1"}},
        {"user": {"id": "carol"}, "tool": {"id": "t2"}},
        {"user": {"id": "alice"}, "tool_name": "send", "server_name": "mail"},
        {"user": {"id": "alice"}, "server": {"id": "s1"}},
        {"x": 1},
    ]
    answers = Above(registry).decider(below).decide_many([asked(document) for document in documents])
    outcomes = [answer.verdict.outcome for answer in answers if isinstance(answer, Decision)]
    assert outcomes == [Outcome.ALLOW, Outcome.DENY, Outcome.ALLOW, Outcome.ALLOW, Outcome.ALLOW]
    assert [sorted({key[0] for key in keys}) for keys in registry.asked] == [["tool", "tool of", "user"], ["server"]]
    assert len(registry.asked[0]) == 5
    assert registry.asked[1] == [("server", "s1"), ("server", "s2")]


def test_memory_is_asked_before_the_shared_store_and_that_before_the_registry(clock: Time) -> None:
    registry, shared = a_registry(), DictStore()
    first = Above(registry, shared=shared)
    second = Above(registry, shared=shared, generations=first.generations)
    question = asked({"user": {"id": "alice"}})
    first.decider(Below()).decide(question)
    assert (len(registry.asked), shared.reads) == (1, 1)
    first.decider(Below()).decide(question)
    assert (len(registry.asked), shared.reads) == (1, 1)
    clock.now += 5
    below = Below()
    second.decider(below).decide(question)
    assert (len(registry.asked), shared.reads) == (1, 2)
    assert below.asked.pop().as_of == clock.now - 5
    # What came from there is kept in memory for as long as anything is, but believed no longer in all.
    clock.now += 9
    assert second.decider(below).decide_nowait(question) is not None
    clock.now += 50
    second.decider(below).decide(question)
    assert len(registry.asked) == 2
    assert below.asked.pop().as_of == clock.now
    names = {it.name: (it.hits, it.misses) for it in second.tiers.statistics()}
    assert names == {"attributes_l1": (1, 2), "attributes_l2": (1, 1)}


def test_that_there_is_no_such_row_is_believed_for_two_seconds(clock: Time) -> None:
    registry, shared = a_registry(), DictStore()
    decider = Above(registry, shared=shared).decider(Below())
    question = asked({"user": {"id": "carol"}})
    assert decider.decide(question).verdict.outcome is Outcome.DENY
    registry.rows["user"].append({"id": "carol"})
    clock.now += 1.9
    assert decider.decide(question).verdict.outcome is Outcome.DENY
    clock.now += 0.2
    assert decider.decide(question).verdict.outcome is Outcome.ALLOW


@pytest.mark.parametrize("subject", ["all", "user alice"])
def test_what_was_invalidated_is_read_again_even_where_it_cannot_be(clock: Time, subject: str) -> None:
    registry, shared = a_registry(), DictStore()
    above = Above(registry, shared=shared)
    decider, question = above.decider(Below()), asked({"user": {"id": "alice"}})
    decider.decide(question)
    above.generations.invalidate([subject])
    assert decider.decide_nowait(question) is None
    clock.now += 1
    registry.away = True
    with pytest.raises(AttributesError, match="cannot be reached"):
        decider.decide(question)
    registry.away = False
    decider.decide(question)
    assert len(registry.asked) == 2


def test_an_invalidation_while_the_registry_is_read_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is not kept under the generation of after."""
    registry = a_registry()
    above = Above(registry)
    read = registry.read

    def reading(*given: Any) -> Any:
        found = read(*given)
        above.generations.invalidate(["user alice"])
        return found

    monkeypatch.setattr(registry, "read", reading)
    question = asked({"user": {"id": "alice"}})
    above.decider(Below()).decide(question)
    assert above.decider(Below()).decide_nowait(question) is None


def test_while_the_registry_is_away_what_is_known_is_used_and_said_to_be_stale(clock: Time) -> None:
    registry, below = a_registry(), Below()
    decider = Above(registry).decider(below)
    question = asked({"user": {"id": "alice"}, "tool": {"id": "t1"}})
    fresh = decider.decide(question)
    assert (fresh.tier, fresh.reusable, below.asked.pop().stale) == (Tier.EVALUATED, Seconds(9.0), False)
    clock.now += 9
    registry.away = True
    assert decider.decide(question).tier is Tier.EVALUATED
    clock.now += 2
    for answer in (decider.decide(question), decider.decide_nowait(question), *decider.decide_many([question])):
        assert isinstance(answer, Decision)
        assert (answer.tier, answer.age, answer.reusable) == (Tier.STALE, Seconds(11.0), NEVER)
        assert below.asked[-1].stale
    clock.now += 288
    assert decider.decide(question).age == Seconds(299.0)
    clock.now += 2
    assert decider.decide_nowait(question) is None
    with pytest.raises(AttributesError, match="cannot be reached"):
        decider.decide(question)
    (failed,) = decider.decide_many([question])
    assert isinstance(failed, EvaluationError)
    registry.away = False
    assert decider.decide(question).tier is Tier.EVALUATED


def test_what_is_shared_bridges_an_outage_too(clock: Time) -> None:
    registry, shared = a_registry(), DictStore()
    first = Above(registry, shared=shared)
    question = asked({"user": {"id": "alice"}})
    first.decider(Below()).decide(question)
    clock.now += 200
    registry.away = True
    second = Above(registry, shared=shared, generations=first.generations).decider(Below())
    assert (second.decide(question).tier, second.decide(question).age) == (Tier.STALE, Seconds(200.0))
    clock.now += 101
    with pytest.raises(AttributesError):
        second.decide(question)


def test_a_registry_that_answers_is_asked_rather_than_what_is_stale(clock: Time) -> None:
    registry, below = a_registry(), Below()
    decider = Above(registry).decider(below)
    question = asked({"user": {"id": "alice"}})
    decider.decide(question)
    clock.now += 11
    assert decider.decide_nowait(question) is None
    decider.decide(question)
    assert len(registry.asked) == 2


@pytest.mark.parametrize(("cache_ttl", "denied"), [(None, False), (20.0, False), (10.0, True), (0.0, True)])
def test_a_stale_answer_is_never_older_than_the_policy_lets_it_be(
    clock: Time, cache_ttl: float | None, denied: bool
) -> None:
    registry, below = a_registry(), Below()
    below.verdict = replace(below.verdict, cache_ttl=None if cache_ttl is None else Seconds(cache_ttl))
    decider, question = Above(registry).decider(below), asked({"user": {"id": "alice"}})
    decider.decide(question)
    clock.now += 15
    registry.away = True
    many = decider.decide_many([question, asked({})])
    assert isinstance(many[0], AttributesError) is denied
    assert isinstance(many[1], Decision)
    if denied:
        with pytest.raises(AttributesError, match="younger"):
            decider.decide(question)
    else:
        assert decider.decide(question).tier is Tier.STALE


@pytest.mark.parametrize(("max_age", "reads"), [(None, 1), (6.0, 1), (4.0, 2), (0.0, 2)])
def test_nothing_older_than_the_caller_wants_is_used(clock: Time, max_age: float | None, reads: int) -> None:
    registry = a_registry()
    decider = Above(registry, shared=DictStore()).decider(Below())
    decider.decide(asked({"user": {"id": "alice"}}))
    clock.now += 5
    question = asked({"user": {"id": "alice"}}, max_age=None if max_age is None else Seconds(max_age))
    assert (decider.decide_nowait(question) is not None) is (reads == 1)
    decider.decide(question)
    assert len(registry.asked) == reads
    registry.away = True
    clock.now += 100
    if max_age is not None:
        with pytest.raises(AttributesError):
            decider.decide(question)


def test_a_server_that_was_renamed_is_not_taken_for_the_one_of_its_old_name(clock: Time) -> None:
    registry, below = a_registry(), Below()
    above = Above(registry)
    question = asked({"tool_name": "send", "server_name": "mail"})
    for _ in range(2):
        above.decider(below).decide(question)
    assert above.decider(below).decide_nowait(question) is not None
    registry.rows["server"][1] = {**MAIL, "name": "post"}
    registry.rows["server"].append({"id": "s5", "name": "mail"})
    registry.rows["tool"].append({"id": "t6", "server_id": "s5", "name": "send", "sensitivity_level": "critical"})
    above.generations.invalidate(["server s2"])
    assert above.decider(below).decide_nowait(question) is None
    for _ in range(2):
        above.decider(below).decide(question)
        assert below.asked[-1].document["tool"]["id"] == "t6"
        assert below.asked[-1].document["server"]["id"] == "s5"
    del clock


def test_what_another_version_wrote_is_a_miss(clock: Time) -> None:
    registry, shared = a_registry(), DictStore()
    first = Above(registry, shared=shared)
    question = asked({"user": {"id": "alice"}})
    first.decider(Below()).decide(question)
    for key, value in shared.entries.items():
        shared.entries[key] = Shared(b"\xc1" + value.payload, value.as_of, value.expires)
    Above(registry, shared=shared, generations=first.generations).decider(Below()).decide(question)
    assert len(registry.asked) == 2
    del clock
