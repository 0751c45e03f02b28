"""What of an event is masked before it is written: secrets always, and what `audit.mask` names."""

import copy
import hmac
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp.audit import event as event_module
from sark_pdp.audit.event import Payloads
from sark_pdp.audit.mask import Changes, Mask, Operation, Rule
from sark_pdp.audit.sensitive import _NAMES, MASKED, Secrets
from sark_pdp.model import LifecycleRecord, Origin, Outcome
from tests.fix_audit import NOON, a_filter, a_record, new_id

KEY = b"k" * 16


def rule(path: str, operation: Operation = "remove", length: int = 4) -> Rule:
    return Rule(tuple(path[1:].split("/")), operation, length)


def hashed(text: str) -> str:
    return f"hmac-sha256:{hmac.digest(KEY, text.encode(), 'sha256')[:16].hex()}"


def event_of(document: Any, *rules: Rule, origin: Origin | None = None) -> dict[str, Any]:
    """The event of a decision whose policy saw all of a document."""
    record = a_record(document, origin=origin or Origin())
    event: dict[str, Any] = json.loads(Payloads("pod/boot", Mask(rules, KEY)).payload(record, 1))
    return event


@pytest.mark.parametrize(
    "name",
    [
        *("password", "PASSWORD", "db_password", "passwd", "passphrase", "client_secret", "Token", "accessToken"),
        *("authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "api_key", "apiKey", "X-API-Key", "api key"),
        *("private_key", "aws_secret_access_key", "credentials", "ssh-key", "bearer", "pwd", "client_assertion"),
        *("dsn", "ConnectionString", "user.jwt"),
    ],
)
@pytest.mark.parametrize("value", ["hunter2", ["hunter2"], {"a": "hunter2"}], ids=["text", "list", "object"])
def test_secrets_are_erased_at_any_depth_whatever_they_hold(name: str, value: object) -> None:
    for document, place in (
        ({name: value}, f"/input/{name}"),
        ({"parameters": {"deep": [{"x": 1}, {name: value, "y": 2}]}}, f"/input/parameters/deep/1/{name}"),
    ):
        event = event_of({"user": {"id": "alice"}, **document})
        assert "hunter2" not in json.dumps(event)
        assert event["details"]["erased"] == [place]
        assert event["user_id"] == "alice"


@pytest.mark.parametrize(
    "document",
    [
        {"tool": {"name": "reset_password"}, "action": "token:refresh"},
        {"parameters": {"max_tokens": 100, "token_budget": 1.5, "uses_tokens": True}},
        {"monkey": 1, "keyboard": "k", "primary_key": "id", "author": "bob", "author_name": "eve"},
        {"attributes": {"request": {"http": {"path": "/a?page=2&sort=name", "body": '{"q": 1}'}}}},
        {"items": [{"name": "colour", "value": "red"}, {"key": "max_tokens", "value": 100}]},
        {"metadata": {"envoy.filters.http.jwt_authn": {"sub": "alice"}}},
        {"params": {"arguments": {"q": "password"}}, "url": "https://example.com/@alice?mail=a@b"},
        {"arguments": '{"q": 1}', "payload": "the password is secret"},
    ],
)
def test_what_is_no_secret_is_written_as_it_is(document: Any) -> None:
    details = event_of(document)["details"]
    assert details["input"] == document
    assert "erased" not in details
    assert "masked" not in details


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/a?token=hunter2&page=2", f"/a?token={MASKED}&page=2"),
        ("/a?x=1&access_token=hunter2#top", f"/a?x=1&access_token={MASKED}#top"),
        ("/a?tok%65n=hunter2", f"/a?tok%65n={MASKED}"),
        ("https://x/?api+key=hunter2;b", f"https://x/?api+key={MASKED};b"),
        ("/a?next=/b?token=hunter2?x&page=2", f"/a?next=/b?token={MASKED}&page=2"),
        ("/a?token=&secret=hunter2\n", f"/a?token=&secret={MASKED}"),
        ("https://x/a#id_token=hunter2", f"https://x/a#id_token={MASKED}"),
        ("https://x/a?X-Amz-Signature=hunter2&sig=hunter2", f"https://x/a?X-Amz-Signature={MASKED}&sig={MASKED}"),
        ("https://bob:hunter2@x/a", f"https://{MASKED}@x/a"),
        ("postgres://hunter2@x:5432/a?b=c@d", f"postgres://{MASKED}@x:5432/a?b=c@d"),
    ],
)
@pytest.mark.parametrize("field", ["path", ":path", "referer", "URL", "callback_url", "redirectUri"])
def test_secrets_in_an_address_are_replaced(field: str, path: str, left: str) -> None:
    details = event_of({"attributes": {"request": {"http": {field: path}}}})["details"]
    assert details["input"]["attributes"]["request"]["http"] == {field: left}
    assert details["masked"] == [f"/input/attributes/request/http/{field}"]


@pytest.mark.parametrize(
    "http",
    [
        {"body": '{"password": "hunter2"}'},
        {"body": "user=x&Passwd=hunter2"},
        {"body": " " * 17_000 + "hunter2"},
        {"rawBody": "aHVudGVyMg== hunter2"},
        {"headerMap": {"headers": [{"key": "Authorization", "rawValue": "hunter2"}]}},
        {"headers": [{"name": "x-api-key", "value": "hunter2"}]},
        {"headers": [{"key": "Authorization", "values": ["hunter2"]}]},
        {"env": [{"Name": "DB_PASSWORD", "Value": {"text": "hunter2"}}]},
        {"Body": '{"token": "hunter2"}'},
        {"body": '{"p\\u0061ssword": "hunter2"}'},
        {"body": "p%61ssword=hunter2"},
        {"arguments": ' {"password": "hunter2"}'},
        {"arguments": '["' + " " * 17_000 + 'hunter2"]'},
    ],
)
def test_bodies_and_lists_of_headers_are_looked_into(http: Any) -> None:
    event = event_of({"attributes": {"request": {"http": http}}})
    assert "hunter2" not in json.dumps(event)
    assert len(event["details"]["erased"]) == 1


DOCUMENT: dict[str, Any] = {
    "user": {"id": "alice", "email": "alice@example.com"},
    "tool": {"name": "search"},
    "context": {"client_ip": "10.0.0.7"},
    "parameters": {"query": "select", "rows": [{"ssn": "1"}, {"ssn": "2", "n": 7}], "a/b": "x"},
}


@pytest.mark.parametrize(
    ("rules", "parameters", "listed"),
    [
        ([rule("/input/parameters/query")], {**DOCUMENT["parameters"], "query": None}, {"erased": ["query"]}),
        (
            [rule("/input/**/ssn", "hash")],
            {**DOCUMENT["parameters"], "rows": [{"ssn": hashed("1")}, {"ssn": hashed("2"), "n": 7}]},
            {"masked": ["rows/0/ssn", "rows/1/ssn"]},
        ),
        (
            [rule("/input/parameters/rows/*/n", "hash")],
            {**DOCUMENT["parameters"], "rows": [{"ssn": "1"}, {"ssn": "2", "n": hashed("7")}]},
            {"masked": ["rows/1/n"]},
        ),
        (
            [rule("/input/parameters/rows/0")],
            {**DOCUMENT["parameters"], "rows": [None, {"ssn": "2", "n": 7}]},
            {"erased": ["rows/0"]},
        ),
        (
            [rule("/input/parameters/*", "truncate", 4)],
            {"query": "sele…", "rows": '[{"s…', "a/b": "x"},
            {"masked": ["query", "rows"]},
        ),
        # The strongest wins, in whichever order they are given.
        (
            [rule("/input/parameters/query", "truncate"), rule("/input/**/query", "remove")],
            {**DOCUMENT["parameters"], "query": None},
            {"erased": ["query"]},
        ),
        ([rule("/input/parameters/nothing"), rule("/input/query")], DOCUMENT["parameters"], {}),
    ],
)
def test_a_rule_changes_what_it_names_and_nothing_else(rules: list[Rule], parameters: Any, listed: Any) -> None:
    event = event_of(DOCUMENT, *rules)
    details = event["details"]
    expected = {name: value for name, value in parameters.items() if value is not None}
    assert details["input"] == {**DOCUMENT, "parameters": expected}
    found = {kind: details[kind] for kind in ("erased", "masked") if kind in details}
    assert found == {kind: [f"/input/parameters/{place}" for place in places] for kind, places in listed.items()}
    assert (event["user_id"], event["user_email"]) == ("alice", "alice@example.com")


def test_a_rule_for_a_secret_says_what_becomes_of_it() -> None:
    details = event_of({"password": "hunter2"}, rule("/input/password", "hash"))["details"]
    assert details["input"] == {"password": hashed("hunter2")}


@pytest.mark.parametrize("length", [4, 200])
@pytest.mark.parametrize("path", ["/input/parameters", "/input/parameters/list/*", "/input/*"])
def test_what_is_left_of_an_object_is_masked_like_all_else(path: str, length: int) -> None:
    """By the rules that are stronger, too."""
    held = {"password": "hunter2", "ssn": "123-45"}
    rules = [rule(path, "truncate", length), rule("/input/**/ssn", "remove")]
    payload = Payloads("pod/b", Mask(rules, KEY)).payload(a_record({"parameters": {**held, "list": [held]}}), 1)
    assert b"hunter2" not in payload
    assert b"123-45" not in payload


def test_a_resource_is_called_by_its_uri_without_the_secrets_in_it() -> None:
    uris = ["postgres://u:hunter2@db/x", "https://h/?token=hunter2"]
    documents = [{"resource": {"uri": uri}} for uri in uris]
    record = a_filter("resource", documents, lambda index: Outcome.DENY if index else Outcome.ALLOW)
    payload = Payloads("pod/b", Mask()).payload(record, 1)
    assert b"hunter2" not in payload
    details = json.loads(payload)["details"]
    assert details["allowed"] == ["postgres://(masked)@db/x"]
    assert [each["resource"] for each in details["refused"]] == ["https://h/?token=(masked)"]


@pytest.mark.parametrize(
    ("operation", "name"),
    [("remove", "#0"), ("hash", hashed('{"name":"orders"}')), ("truncate", '{"na…')],
)
def test_a_resource_that_a_rule_is_for_is_called_by_what_is_left_of_it(operation: Operation, name: str) -> None:
    record = a_filter("tool", [{"tool": {"name": "orders"}}], lambda _: Outcome.ALLOW)
    payload = Payloads("pod/b", Mask([rule("/input/tool", operation)], KEY)).payload(record, 1)
    assert json.loads(payload)["details"]["allowed"] == [name]


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("/input/user/email", "user_email"),
        ("/input/user/id", "user_id"),
        ("/input/tool/name", "tool_name"),
        ("/input/context/client_ip", "ip_address"),
    ],
)
def test_a_column_that_is_made_of_a_masked_field_is_masked_with_it(path: str, column: str) -> None:
    plain = event_of(DOCUMENT)[column]
    event = event_of(DOCUMENT, rule(path, "hash"))
    assert event[column] == hashed(plain)
    assert event["details"]["masked"] == [path]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("user_email", "alice@example.com"), ("ip_address", "10.0.0.7"), ("request_id", "request-1")],
)
def test_a_column_can_be_masked_by_its_name(name: str, kept: str) -> None:
    assert event_of(DOCUMENT)[name] == kept
    assert event_of(DOCUMENT, rule(f"/{name}"))[name] is None
    assert event_of(DOCUMENT, rule(f"/{name}", "hash"))[name] == hashed(kept)
    assert event_of(DOCUMENT, rule(f"/{name}", "truncate", 3))[name] == f"{kept[:3]}…"


def test_reason_and_peer_can_be_masked_wherever_they_show() -> None:
    origin = Origin(identity="client.example")
    event = event_of({}, rule("/reason", "truncate", 3), rule("/peer", "hash"), origin=origin)
    assert event["details"]["reason"] == "bec…"
    assert event["details"]["peer"] == hashed("client.example")
    # Where nobody else is named, the peer is the user.
    assert event["user_id"] == hashed("client.example")


def test_a_filter_is_masked_in_its_resources_and_their_names_too() -> None:
    documents = [{**DOCUMENT, "tool": {"name": name, "token": "hunter2", "note": "long text"}} for name in ("a", "b")]
    record = a_filter("tool", documents, [Outcome.ALLOW, Outcome.DENY].__getitem__)
    rules = [rule("/input/tool/name", "hash"), rule("/input/tool/note", "truncate"), rule("/reason")]
    event = json.loads(Payloads("pod/boot", Mask(rules, KEY)).payload(record, 1))
    details = event["details"]
    assert details["allowed"] == [hashed("a")]
    assert details["refused"] == [{"resource": hashed("b"), "decision": "deny", "reason": ""}]
    assert details["resources"] == [{"name": hashed(name), "note": "long…"} for name in ("a", "b")]
    assert details["erased"] == ["/resources/0/token", "/resources/1/token"]
    assert details["masked"] == [f"/resources/{index}/{field}" for index in (0, 1) for field in ("name", "note")]
    assert "hunter2" not in json.dumps(event)


@pytest.mark.parametrize("name", ["password", "secret_token", "otp_passcode"])
def test_a_number_is_a_secret_unless_it_counts_tokens(name: str) -> None:
    details = event_of({name: 424242, "items": [{"name": name, "value": 424242}]})["details"]
    assert details["input"] == {"items": [{"name": name}]}


def test_what_is_told_of_the_process_itself_is_masked_by_the_same_rules() -> None:
    told = {"ip_address": "10.0.0.7", "names": ["eve.example"], "reason": "why", "user_id": "alice", "left_out": 0}
    record = LifecycleRecord(new_id(), NOON, "security_violation", "high", told)
    rules = [rule("/ip_address"), rule("/peer", "hash"), rule("/user_id", "hash"), rule("/reason", "truncate", 1)]
    for rules_given, expected in (
        ([], told),
        (
            rules,
            {
                **told,
                "ip_address": None,
                "names": [hashed("eve.example")],
                "user_id": hashed("alice"),
                "reason": "w…",
            },
        ),
    ):
        event = json.loads(Payloads("pod/boot", Mask(rules_given, KEY)).payload(record, 1))
        assert event["details"] == expected


def test_the_list_of_what_was_masked_is_bounded() -> None:
    erased = event_of({"parameters": {f"token_{number}_{'x' * 1000}": "t" for number in range(500)}})
    listed = erased["details"]["erased"]
    assert len(listed) == 51
    assert listed[-1] == "(and more)"
    assert max(map(len, listed)) < 200


def test_what_is_nested_too_deeply_has_no_way_around_the_mask() -> None:
    deep: Any = {"password": "hunter2"}
    for _ in range(20_000):
        deep = {"a": deep}
    for rules in ((), (rule("/input/**/x"),)):
        payload = Payloads("pod/boot", Mask(rules, KEY)).payload(a_record({"top": deep, "token": "hunter2"}), 1)
        assert b"hunter2" not in payload


NAMES = st.sampled_from(["a", "token", "path", "Password", "body", "Values", "name", "arguments"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["password", '{"token": 1}', "//a@b", "?sig=1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "token", "path", "Password", "body", "Values", "name", "arguments"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "user", "secret", "max_tokens"]), VALUES))
def test_what_looks_harmless_at_a_glance_would_not_be_changed_by_a_closer_look(document: Any) -> None:
    secrets = Secrets()
    masked = event_of(document)["details"]["input"]
    # Asked twice: what it remembers of names must not change what it says.
    assert secrets.none_in(document) == secrets.none_in(document) == (masked == document)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "user", "secret", "max_tokens"]), VALUES), max_size=4), st.data())
def test_what_is_remembered_of_inputs_changes_nothing_of_their_events(
    documents: list[Any], data: st.DataObject
) -> None:
    """Whether an input comes again, was forgotten, or is not looked for at the time: as a closer look alone has it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(event_module, "_MOST_HARMLESS", 2)
        patched.setattr(event_module, "_PAUSE", 3)
        payloads = Payloads("pod/boot")
        order = data.draw(st.lists(st.sampled_from(documents), max_size=20)) if documents else []
        for sequence, document in enumerate(order, 1):
            details = json.loads(payloads.payload(a_record(copy.deepcopy(document)), sequence))["details"]
            changes = Changes([], [])
            assert details["input"] == Mask().input(document, changes)
            assert details.get("erased", []) == changes.erased
            assert details.get("masked", []) == changes.masked


def test_no_input_with_a_secret_is_remembered() -> None:
    """It would be in memory long after its call."""
    payloads = Payloads("pod/boot")
    for document in ({"password": "hunter2"}, {"path": "/a?token=hunter2"}, {"user": {"id": "alice"}}):
        payloads.payload(a_record(document), 1)
    assert payloads._harmless == {b'{"user":{"id":"alice"}}'}
    limited = Payloads("pod/boot", Mask([rule("/input/user/email")], KEY))
    limited.payload(a_record({"user": {"email": "alice@example.com"}}), 1)
    assert limited._harmless == set()


def test_what_is_remembered_is_bounded() -> None:
    payloads = Payloads("pod/boot")
    for number in range(3000):
        payloads.payload(a_record({"url": f"/a?b={number}"}), number)
        payloads.payload(a_record({"text": "x" * 5000, "n": number}), number)
    assert len(payloads._harmless) <= 1024
    assert len(payloads._mask._secrets._addresses) <= 1024
    assert max(map(len, payloads._harmless)) <= 1024


WORDS = ["passw", "passphrase", "passcode", "pwd", "secret", "token", "authorization", "cookie", "credential", "bearer"]
ENDS = ["jwt", "assertion", "dsn"]
KEYS = ["access", "account", "api", "auth", "encryption", "master", "private", "signing", "ssh"]
BEFORE = st.sampled_from([*WORDS, *ENDS, *KEYS, "key", "connection", "string", "pass", "p", "s", "a", "c", "k"])


@given(st.lists(BEFORE | st.sampled_from(["-", "_", ".", " ", "x", "1", "é", "\n"]), max_size=8))
def test_the_words_of_secrets_are_those_that_the_documentation_names(parts: list[str]) -> None:
    text = "".join(parts)
    named = any(word in text for word in WORDS)
    ended = any(re.search(rf"{word}\b", text) for word in ENDS)
    keyed = any(re.search(rf"{word}[-_. ]?key", text) for word in KEYS)
    connected = re.search("connection[-_. ]?string", text) is not None
    assert (_NAMES.search(text) is not None) == (named or ended or keyed or connected)


def test_what_is_put_into_an_object_later_is_found() -> None:
    inner: dict[str, Any] = {"a": 1}
    document = {"user": inner}
    secrets = Secrets()
    assert secrets.none_in(document)
    inner["b"] = [{"c": {"password": "hunter2"}}]
    assert not secrets.none_in(document)


def test_an_address_of_many_parameters_is_masked_too() -> None:
    address = "/a" + "?next=/b" * 20_000 + "?token=hunter2"
    event = event_of({"path": address})
    assert event["details"]["input"] == {"path": address.replace("hunter2", MASKED)}
