"""`strings.render_template` makes the texts that OPA makes, and refuses by name what it does not support."""

from typing import Any

import pytest

from sark_pdp.engine.wasm.values import RegoObject, RegoSet
from sark_pdp.errors import EvaluationError
from tests.fix_rego import Call, Oracle, call_builtin, differences

DATA: dict[str, Any] = {
    "s": "text", "n": 5, "zero": 0, "f": 1.5, "t": True, "no": False, "null": None, "e": "", "l": ["a", "b",
    1, None, [2]],
    "el": [], "m": {"b": 1, "a": {"c": "deep"}}, "em": {}, "ü": "ümlaut",
    "l2": [{"k": "1"}, {"k": "2"}],
}  # fmt: skip
TEMPLATES: list[Any] = [
    "", "plain", "{{.s}}", "{{ .s }}", "a{{.s}}b{{.n}}c", "{{.n}} {{.f}} {{.t}} {{.null}} {{.l}} {{.m}}",
    "{{.missing}}", "{{.missing.x}}", "{{.missing.x.y}}", "{{with .missing.x}}y{{end}}", "{{.m.x.y}}",
    "{{.s.x}}", "{{.m.a.c}}", "{{.m.a.x}}", "{{$.s}}", "{{.}}", "{{$}}", "{{.ü}}",
    "{{.e}}", "{{.null.x}}", "{{range .l}}<{{.}}>{{end}}", "{{range $i, $e := .l}}{{$i}}={{$e}};{{end}}",
    "{{range $e := .l}}{{$e}}{{end}}", "{{range .el}}x{{else}}none{{end}}", "{{range .m}}{{.}}{{end}}",
    "{{range $k, $v := .m}}{{$k}}:{{$v}},{{end}}", "{{range .missing}}x{{else}}none{{end}}",
    "{{range .l2}}{{.k}}{{$.s}}{{end}}", "{{range $i, $e := .l}}{{if $i}},{{end}}{{$e}}{{end}}",
    "{{range .null}}x{{end}}", "{{if .t}}y{{else}}n{{end}}", "{{if .no}}y{{else}}n{{end}}",
    "{{if .zero}}y{{else}}n{{end}}", "{{if .e}}y{{else}}n{{end}}", "{{if .el}}y{{else}}n{{end}}",
    "{{if .em}}y{{else}}n{{end}}", "{{if .missing}}y{{end}}", "{{if .t}}{{if .no}}a{{else}}b{{end}}{{end}}",
    "{{with .m}}{{.b}}{{end}}", "{{with .missing}}x{{else}}{{.s}}{{end}}", "{{with $x := .s}}{{$x}}{{.}}{{end}}",
    "{{$x := .s}}{{$x}}", "{{$x := 1}}{{$x = 2}}{{$x}}", "{{$x = 2}}", "{{$x}}", "{{if .t}}{{$x := 1}}{{end}}{{$x}}",
    "{{$x := 1}}{{if .t}}{{$x = 2}}{{end}}{{$x}}", "a {{- .s -}} b", "a\n{{- .s}}\n b", "{{- .s -}}", "{{/* c */}}x",
    "x {{- /* c */ -}} y", "{{`raw`}}", "{{\"str\"}}", "{{5}}", "{{true}}", "{{nil}}", "{{len .s}}", "{{len .l}}",
    "{{len .m}}", "{{len .n}}", "{{len .t}}", "{{.l | len}}", "{{index .l 0}}", "{{index .l 9}}", "{{index .m \"b\"}}",
    "{{index .m \"x\"}}", "{{index .l 4 0}}", "{{index .m 0}}", "{{index .l \"0\"}}", "{{eq .s \"text\"}}",
    "{{eq .s \"x\" \"text\"}}", "{{eq .n 5}}", "{{eq .n \"5\"}}", "{{eq .t true}}", "{{eq 5 5}}", "{{eq 5 \"5\"}}",
    "{{ne .s \"x\"}}", "{{not .t}}", "{{and .t .s}}", "{{and .no .s}}", "{{or .e .s}}", "{{or .e .no}}",
    "{{if and .t (eq .s \"text\")}}y{{end}}", "{{if or .no .e}}y{{end}}", "{{print .s .n 1 2 .t}}", "{{print 1 2}}",
    "{{print \"a\" \"b\"}}", "{{.s | print \"x\"}}", "{{(index .l2 0).k}}", "{{.s | len | print}}", "{{", "{{.s", "}}",
    "{{}}", "{{ }}", "{{end}}", "{{else}}", "{{if}}{{end}}", "{{if .t}}", "{{range}}{{end}}", "{{nope .s}}",
    "{{.s .n}}", "{{.s | .n}}", "{{.s.}}", "{{..s}}", "{{(.s}}", "{{.s)}}", "{{end .s}}",
    "{{if .t}}{{else}}{{else}}{{end}}", "{{\"unterminated}}", "{{$x, $y := .l}}", "{{range $a, $b, $c := .l}}{{end}}",
    "{{.s}}}}", "{{ .s }", "{{len}}", "{{not}}", "{{eq .s}}", "{{{.s}}}", "{ {.s}}", 5, None,
]  # fmt: skip

ODD_DATA: list[Any] = [
    [],
    "x",
    None,
    {"a": 1},
    RegoObject([(1, 2)]),
    {"a": RegoSet([1, 2])},
    {"a": [RegoObject([(1, 2)])]},
]


def test_texts_are_those_that_opa_makes(rego_oracle: Oracle) -> None:
    calls: list[Call] = [("strings.render_template", [template, DATA]) for template in TEMPLATES]
    calls += [("strings.render_template", ["x", value]) for value in ODD_DATA]
    assert differences(rego_oracle, calls) == []


@pytest.mark.parametrize(
    "template",
    [
        '{{printf "%v" .s}}', "{{html .s}}", '{{define "a"}}{{end}}', "{{if .t}}a{{else if .no}}b{{end}}", '{{"a\\n"}}',
        "{{range .s}}{{end}}", "{{lt 1 2}}", "{{range .l}}{{break}}{{end}}",
    ],
)  # fmt: skip
def test_what_is_not_supported_fails_the_evaluation(template: str) -> None:
    with pytest.raises(EvaluationError, match="not supported"):
        call_builtin("strings.render_template", [template, DATA])


def test_what_is_too_large_fails_the_evaluation() -> None:
    many = {"l": ["x" * 100] * 300}
    for template in (
        "x" * 70_000,
        "{{range .l}}{{range $.l}}{{end}}{{end}}",
        "{{range .l}}{{range $.l}}{{.}}{{end}}{{end}}",
        "{{if .l}}" * 60 + "{{end}}" * 60,
        "{{" + "(" * 200 + ".l" + ")" * 200 + "}}",
    ):
        with pytest.raises(EvaluationError, match=r"more than|may have"):
            call_builtin("strings.render_template", [template, many])
