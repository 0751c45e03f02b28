"""`json.match_schema` and `json.verify_schema` return what OPA returns, the words of the errors included."""

import json
from itertools import product
from typing import Any

import pytest

from sark_pdp.engine.wasm.builtins import UNDEFINED
from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

DRAFT = "http://json-schema.org/draft-0{}/schema#"
PERSON = {
    "$schema": DRAFT.format(7),
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    {}, {"type": "object"}, {"type": ["string", "null"]}, {"type": "integer"}, {"type": "number"}, {"type": "array"},
    {"type": "boolean"}, {"type": "null"}, PERSON, {"minimum": 2}, {"maximum": 2}, {"exclusiveMinimum": 2},
    {"exclusiveMaximum": 2}, {"minimum": 2, "exclusiveMinimum": True}, {"maximum": 2, "exclusiveMaximum": True},
    {"minimum": 2, "exclusiveMinimum": False}, {"multipleOf": 0.1}, {"multipleOf": 2}, {"multipleOf": 1.5},
    {"minimum": 1000000}, {"minimum": 1234567}, {"minimum": 0.00001}, {"minimum": 123456.5},
    {"minimum": 9007199254740993}, {"minLength": 2}, {"maxLength": 1}, {"pattern": "^a+$"}, {"pattern": "b"},
    {"minItems": 2}, {"maxItems": 1}, {"uniqueItems": True}, {"uniqueItems": False}, {"minProperties": 2},
    {"maxProperties": 1}, {"required": ["a", "b"]},
    {"properties": {"a": {"type": "string"}, "b": {"properties": {"c": {"type": "null"}}}}},
    {"additionalProperties": False}, {"additionalProperties": True}, {"additionalProperties": {"type": "string"}},
    {"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False},
    {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}, {"propertyNames": {"maxLength": 1}},
    {"dependencies": {"a": ["b"]}}, {"dependencies": {"a": {"required": ["c"]}}}, {"dependencies": {"a": []}},
    {"items": {"type": "integer"}}, {"items": [{"type": "integer"}, {"type": "string"}]}, {"items": []},
    {"items": [{"type": "integer"}], "additionalItems": False}, {"items": [{}], "additionalItems": {"type": "string"}},
    {"contains": {"type": "string"}}, {"contains": {"minimum": 100, "type": "number"}}, {"const": 1}, {"const": None},
    {"const": {"a": [1.0]}}, {"enum": [1, "a", None, [1], {"a": 1}]}, {"enum": []}, {"enum": ["é<>", 1e21, 1e-7, 0.5]},
    {"allOf": [{"type": "integer"}, {"minimum": 2}]}, {"anyOf": [{"type": "string"}, {"minimum": 2}]},
    {"anyOf": [{"type": "object", "required": ["z"]}, {"type": "string"}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 2}]}, {"oneOf": [{"type": "string"}, {"type": "array"}]},
    {"not": {"type": "integer"}}, {"not": {}}, {"not": True},
    {"if": {"type": "integer"}, "then": {"minimum": 2}, "else": {"type": "string"}},
    {"if": {"type": "string"}, "then": False}, {"$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}},
    {"properties": {"a": {"$ref": "#"}}, "type": "object"},
    {"$ref": "#a", "definitions": {"x": {"$id": "#a", "type": "string"}}},
    {"$ref": "#/x~1y/~0z", "x/y": {"~z": {"type": "null"}}},
    {"$id": "http://e.org/root.json", "$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}},

      {"$id": "http://e.org/root.json", "items": {"$ref": "a.json"}, "definitions": {"a": {"$id": "a.json",
     "type": "null"}}},

      {"id": "http://e.org/r", "properties": {"a": {"$ref": "other"}}, "definitions": {"o": {"id": "other",
     "type": "string"}}},

      {"$schema": DRAFT.format(4), "minimum": 2, "exclusiveMinimum": True, "const": 5, "propertyNames": False,
     "if": False},
    {"$schema": DRAFT.format(6), "exclusiveMinimum": 2, "const": 3, "if": {}, "then": False},
    {"$schema": DRAFT.format(7), "exclusiveMaximum": 2, "if": {}, "then": {"type": "string"}}, {"$schema": "urn:other"},
    {"allOf": [{"properties": {"a": {"type": "string"}}}, {"required": ["b"]}]}, True, False, [], "true", "{", "5",
    "null", 5, None, '{"type": "string"}', {"anyOf": []}, {"oneOf": []}, {"allOf": []}, {"items": True},
    {"items": False}, {"contains": False}, RegoObject([(1, 2), ("type", "object")]), RegoSet(["a"]),
]  # fmt: skip
DOCUMENTS: list[Any] = [
    {}, {"a": 1}, {"a": "x", "b": {"c": 1}}, {"a": 1, "b": "x", "c": None}, {"name": "n", "age": 5},
    {"name": "", "age": -1.5}, {"age": "x", "z": 1}, [], [1], [1, "a"], [1, 1.0], ["a", ["b"], None], [[1], [1]],
    {"a": {"a": "deep"}}, {"aa": 1, "ab": "x"}, "1", "2", "2.0", "2.5", "0.3", "1000000", "-1", "9007199254740992",
    '"a"', '"ab"', '"é😀"', "null", "true", '""', "1e21", "0.5", '"\\ud800"', "x", "", 5, None, True, RegoSet([1]),
    [RegoSet([2, 1])], RegoObject([(1, 2)]), "1.0", "3", '{"a": [1]}',
]  # fmt: skip
OTHERWISE_BROKEN: list[Any] = [
    {"minLength": 2, "maxLength": 1}, {"minProperties": 2, "maxProperties": 1}, {"minItems": 2, "maxItems": 1},
    {"pattern": "(?=a)"}, {"pattern": "("}, {"patternProperties": {"(": {}}}, {"dependencies": {"a": [1]}},
    {"$ref": "#/definitions/none"}, {"$ref": "#/definitions/none", "definitions": {}}, {"$ref": "other.json"},
    {"$ref": "urn:a:b"}, {"$ref": "#/a/b", "a": [1]}, {"$ref": "#/a/5", "a": [1]}, {"$ref": "#/a/0", "a": [1]},
    {"$ref": "#/a/-1", "a": [1]}, {"$ref": "#/a/b/c", "a": {"b": 5}}, {"enum": [1, 1.0]},
    {"definitions": {"a": {"$id": "x"}, "b": {"$id": "x"}}},
    "", "x", "[]", "5", '"x"', "null", "true", "{}", '{"type": 5}', 5, None, [], [1], RegoSet(),
]  # fmt: skip


def keywords(names: tuple[str, ...], values: tuple[Any, ...]) -> list[Any]:
    """A schema of one keyword for each name and value."""
    return [{name: value} for name, value in product(names, values)]


BROKEN: list[Any] = [
    *keywords(("type",), ("nope", ["nope"], ["string", "string"], 5, None, [5], {}, [])),
    *keywords(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), (-1, 1.5, 1.0, "1")
    ),
    *keywords(("minimum", "maximum", "multipleOf"), ("1", None, True, -1, 0)),
    *keywords(("exclusiveMinimum", "exclusiveMaximum"), ("1", None, True, False, -1)),
    *(
        {"$schema": DRAFT.format(draft), **schema}
        for draft in (4, 6, 7)
        for schema in keywords(("exclusiveMinimum", "exclusiveMaximum"), (True, False, 1, "1"))
    ),
    *keywords(
        ("properties", "patternProperties", "additionalProperties", "dependencies", "definitions", "propertyNames"),
        (5, [], "x", {"a": 5}, {"a": None}, {"a": "x"}, {"a": {"type": "nope"}}, None, {"a": True}),
    ),
    *keywords(
        ("items", "additionalItems", "contains", "not", "if", "then", "else", "anyOf", "allOf", "oneOf"),
        (5, [5], "x", None, [{"type": "nope"}], {"type": "nope"}, True, [True]),
    ),
    *keywords(("title", "description", "$ref", "$id", "id", "format", "pattern", "$schema"), (5, None, True, [1])),
    *keywords(("uniqueItems", "required", "enum"), (5, None, True, [1], ["a", "a"], {})),
    *OTHERWISE_BROKEN,
]
FORMATS = [
    "date", "time", "date-time", "hostname", "email", "idn-email", "ipv4", "ipv6", "uri", "uri-reference", "iri",
    "iri-reference", "uri-template", "uuid", "regex", "json-pointer", "relative-json-pointer", "unknown",
]  # fmt: skip
FORMATTED = [
    "", "x", "2020-02-29", "2021-02-29", "2020-2-9", "2020-13-01", "2020-00-01", "12:30:45", "1:30:45", "24:00:00",
    "12:60:00", "12:30:60", "12:30", "12:30:45Z", "12:30:45z", "12:30:45+01:00", "12:30:45+24:00", "12:30:45+25:00",
    "12:30:45+01:60", "12:30:45+01:61", "12:30:45.123", "12:30:45,5Z", "2020-02-29T12:30:45Z", "2020-02-29t12:30:45Z",
    "2020-02-29 12:30:45Z", "2020-02-29T12:30:45", "2020-02-29T1:30:45Z", "2020-02-29T12:30:45.5+01:00",
    "2021-02-29T12:30:45Z", "example.com", "-a.b", "a-.b", "a_b", "a" * 63, "a" * 64, "é.com", "a..b", "a.", "a@b",
    "a@b.c", "A <a@b.c>", "<a@b>", '"a b" <a@b>', '"a b"@c', "a b@c", "a@", "@b", "a@b@c", "a.@b", ".a@b", "a..b@c",
    "a@b.", "ü@é", "a@[1.2.3.4]", "a@b (c)", " a@b ", "A. B <a@b>", "a@b, c@d", "1.2.3.4", "1.2.3", "01.2.3.4", "::1",
    "::1.2.3.4", "fe80::1%eth0", "1::2::3", "http://a", "http://a b", "http://a/ b", "a:b", "//a", "/a", "a\\b",
    "http://a\\b", "/{a}", "/{a", "/a}", "/{a}{b}", "/{a{b}", "123e4567-e89b-12d3-a456-426614174000",
    "123E4567-E89B-12D3-A456-426614174000", "123e4567e89b12d3a456426614174000", "(", "(?=a)", "a+", "/a/b", "/a~0b",
    "/a~2", "0", "0#", "01", "1/a", "2/", "x\n", "2020-02-29\n",
]  # fmt: skip


def test_documents_match_as_opa_says(rego_oracle: Oracle) -> None:
    pairs = product(DOCUMENTS, SCHEMAS)
    found = differences(rego_oracle, [("json.match_schema", [document, schema]) for document, schema in pairs])
    # Where it looks at keys, OPA itself has no order.
    assert [each for each in found if not _same_but_for_order(each[1], each[2])] == []


def test_schemas_are_sound_or_not_as_opa_says(rego_oracle: Oracle) -> None:
    assert differences(rego_oracle, [("json.verify_schema", [schema]) for schema in (*SCHEMAS, *BROKEN)]) == []


def test_formats_are_those_of_gojsonschema(rego_oracle: Oracle) -> None:
    calls: list[Call] = [
        ("json.match_schema", [json.dumps(text), {"format": name}]) for name, text in product(FORMATS, FORMATTED)
    ]
    assert differences(rego_oracle, calls) == []


def _same_but_for_order(mine: Any, theirs: Any) -> bool:
    if not isinstance(mine, list) or not isinstance(theirs, list) or mine[0] is not theirs[0]:
        return False
    texts = [sorted(json.dumps(error, sort_keys=True) for error in errors) for errors in (mine[1], theirs[1])]
    return texts[0] == texts[1]


def test_no_other_document_is_fetched() -> None:
    for reference in ("http://127.0.0.1:9/schema.json", "https://example.com/x", "file:///etc/passwd", DRAFT.format(7)):
        calls: list[Call] = [("json.verify_schema", []), ("json.match_schema", [{}])]
        for name, operands in calls:
            with pytest.raises(EvaluationError, match="none is fetched"):
                call_builtin(name, [*operands, {"properties": {"a": {"$ref": reference}}}])


def test_what_is_too_large_fails_the_evaluation() -> None:
    doubling: dict[str, Any] = {"$ref": "#/definitions/a0", "definitions": {}}
    for level in range(30):
        doubling["definitions"][f"a{level}"] = {"allOf": [{"$ref": f"#/definitions/a{level + 1}"}] * 2}
    doubling["definitions"]["a30"] = {}
    calls: list[Call] = [
        ("json.match_schema", [{}, {"$ref": "#"}]),
        ("json.match_schema", [{}, doubling]),
        ("json.match_schema", [[0] * 30_000, {"items": {"type": "string"}}]),
        ("json.verify_schema", ['{"not":' * 5000 + "{}" + "}" * 5000]),
        ("json.verify_schema", [{"description": "x" * 300_000}]),
        ("json.verify_schema", [{"allOf": [{}] * 6000}]),
        ("json.verify_schema", [{"pattern": "a" * 5000}]),
    ]
    for name, operands in calls:
        with pytest.raises(EvaluationError, match=r"too deeply|too large|more than"):
            call_builtin(name, operands)


def test_expressions_that_would_take_python_for_ever_take_no_time() -> None:
    schema = {"pattern": "^(a+)+$", "patternProperties": {"^(a|a)*$": {}}}
    assert call_builtin("json.match_schema", [json.dumps("a" * 50_000 + "b"), schema])[0] is False
    assert call_builtin("json.match_schema", [{"a" * 50_000 + "b": 1}, schema]) is not UNDEFINED
