package envoy.spelling_test

import data.envoy.authz
import data.sark.fixtures

words := {
	"name": {concat("", [a, b, c, d]) | some a in {"n", "N"}; some b in {"a", "A"}; some c in {"m", "M"}; some d in {"e", "E"}},
	"type": {concat("", [a, b, c, d]) | some a in {"t", "T"}; some b in {"y", "Y"}; some c in {"p", "P"}; some d in {"e", "E"}},
	"uri": {concat("", [a, b, c]) | some a in {"u", "U"}; some b in {"r", "R"}; some c in {"i", "I"}},
	"ref": {concat("", [a, b, c]) | some a in {"r", "R"}; some b in {"e", "E"}; some c in {"f", "F"}},
	"method": {concat("", [a, b, c, d, e, f]) |
		some a in {"m", "M"}
		some b in {"e", "E"}
		some c in {"t", "T"}
		some d in {"h", "H"}
		some e in {"o", "O"}
		some f in {"d", "D"}
	},
	"params": {concat("", [a, b, c, d, e, f]) |
		some a in {"p", "P"}
		some b in {"a", "A"}
		some c in {"r", "R"}
		some d in {"a", "A"}
		some e in {"m", "M"}
		some f in {"s", "S", "ſ"}
	},
}

# All spellings of the word but the one that is judged.
others(word) := words[word] - {word}

test_all_spellings_are_there if {
	{word: count(spellings) | some word, spellings in words} == {
		"name": 16,
		"type": 16,
		"uri": 8,
		"ref": 8,
		"method": 64,
		"params": 96,
	}
}

request(body) := {
	"attributes": {"request": {"http": {"method": "POST", "path": "/mcp", "headers": {"x-sark-user": "bob"}}}},
	"parsed_path": ["mcp"],
	"parsed_body": body,
	"truncated_body": false,
}

answer(body) := said if {
	said := authz.allow with input as request(body)
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
}

message(method, params) := {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}

call := message("tools/call", {"name": "echo", "arguments": {"Name": "is an argument"}})

completion := message("completion/complete", {
	"ref": {"type": "ref/prompt", "name": "summarize"},
	"argument": {"name": "Name", "value": "v"},
})

listening := message("subscriptions/listen", {"notifications": {
	"toolsListChanged": true,
	"resourceSubscriptions": ["docs://a"],
}})

refused(body) if {
	answer(body).reason == "the message has a member that differs in capitals only from one that is judged"
	not answer(body).allowed
}

test_messages_that_are_spelled_well if {
	every body in [call, completion, listening] {
		answer(body).allowed
	}
}

test_other_spellings_of_a_member if {
	every word in ["method", "params"] {
		every other in others(word) {
			refused(object.union(call, {other: "x"}))
		}
	}
}

test_other_spellings_of_a_parameter if {
	every word in ["name", "uri", "ref"] {
		every other in others(word) {
			refused(object.union(call, {"params": {other: "deploy"}}))
			refused(message("tools/call", {other: "echo"}))
		}
	}
}

test_other_spellings_within_a_reference if {
	every word in ["type", "name", "uri"] {
		every other in others(word) {
			refused(object.union(completion, {"params": {"ref": {other: "secret_plan"}}}))
		}
	}
}

test_other_spellings_of_subscriptions if {
	every other in ["ResourceSubscriptions", "RESOURCESUBSCRIPTIONS", "resourceſubſcriptionſ", "resourceSubscriptionS"] {
		refused(object.union(listening, {"params": {"notifications": {other: ["vault://b"]}}}))
	}
}

test_an_answer_that_is_a_call_for_others if {
	refused({"jsonrpc": "2.0", "id": 1, "result": {}, "Method": "tools/call", "params": {"name": "deploy"}})
}

test_references_of_other_types if {
	every reference in [7, "x", null, [], ["Name"], {}] {
		not answer(message("completion/complete", {"ref": reference})).allowed
		answer(message("tools/call", {"name": "echo", "ref": reference, "notifications": reference})).allowed
	}
}
