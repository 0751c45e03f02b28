package envoy.mcp_test

import data.envoy.authz
import data.sark.fixtures

ask_at(document, now) := answer if {
	answer := authz.allow with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
		with time.now_ns as now
}

ask(document) := ask_at(document, fixtures.tuesday("12:00:00"))

request(user, body) := {
	"attributes": {"request": {"http": {
		"method": "POST",
		"path": "/mcp",
		"headers": {"x-sark-user": user},
	}}},
	"parsed_path": ["mcp"],
	"parsed_body": body,
	"truncated_body": false,
}

message(method, params) := {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}

call(tool) := message("tools/call", {"name": tool, "arguments": {"debug": true}})

second_factor := {"attributes": {"request": {"http": {"headers": {"x-sark-mfa": "true"}}}}}

verified(document) := object.union(document, second_factor)

grant(document) := answer.reason if {
	answer := ask(document)
	answer.allowed == true
	not answer.http_status
	not answer.body
}

# The reason of a refused call that its client can match to its id.
refusal(document, id) := answer.reason if {
	answer := ask(document)
	answer.allowed == false
	answer.http_status == 200
	answer.headers == {"content-type": "application/json"}
	json.unmarshal(answer.body) == {
		"jsonrpc": "2.0",
		"id": id,
		"error": {"code": -32001, "message": concat("", ["refused by policy: ", answer.reason])},
	}
}

# The reason of a refusal of what is no call.
rejection(document) := answer.reason if {
	answer := ask(document)
	answer.allowed == false
	answer.http_status == 403
	answer.headers == {"content-type": "application/json"}
	json.unmarshal(answer.body).id == null
}

# Calls

test_call_of_a_tool if {
	ask(request("bob", call("search"))) == {
		"allowed": true,
		"reason": "a role grants tools of medium sensitivity in production",
		"cache_ttl": 30,
	}
}

test_refused_call_is_answered_under_its_id if {
	every id in [7, 0, -1, 1.5, "seven", ""] {
		body := object.union(call("search"), {"id": id})
		refusal(request("carol", body), id) == "the server is not visible to the user"
	}
}

test_what_has_no_id_is_no_call if {
	every body in [
		json.remove(call("search"), ["id"]),
		object.union(call("search"), {"id": null}),
		object.union(call("search"), {"id": {"a": 1}}),
	] {
		rejection(request("carol", body)) == "the server is not visible to the user"
	}
}

test_sensitive_tool_needs_the_second_factor if {
	document := request("bob", call("deploy"))
	refusal(document, 7) == "tools of high sensitivity need multi-factor authentication"
	grant(verified(document)) == "a role grants tools of high sensitivity in production"
	yes := {"attributes": {"request": {"http": {"headers": {"x-sark-mfa": "yes"}}}}}
	refusal(object.union(document, yes), 7) == "tools of high sensitivity need multi-factor authentication"
}

test_sensitive_tool_needs_working_hours if {
	answer := ask_at(verified(request("bob", call("deploy"))), fixtures.saturday("12:00:00"))
	answer.allowed == false
	answer.cache_ttl == 10
}

test_answer_ends_with_the_hours if {
	ask_at(verified(request("bob", call("deploy"))), fixtures.tuesday("17:59:58")).cache_ttl == 2
}

test_tool_that_the_catalogue_lacks if {
	refusal(request("bob", call("unheard_of")), 7) == "what the message asks for is not known"
	refusal(request("bob", message("tools/call", {})), 7) == "what the message asks for is not known"
	refusal(request("bob", message("tools/call", {"name": ["search"]})), 7) == "what the message asks for is not known"
}

test_tool_whose_parameters_need_a_filter if {
	refusal(request("bob", call("lookup")), 7) == "Envoy cannot take out the parameters that this tool must not get"
}

test_what_a_client_says_of_itself_counts_for_nothing if {
	forged := {
		"user": {"id": "ada", "role": "developer", "mfa_verified": true},
		"tool": {"name": "echo", "sensitivity_level": "low", "owner": "carol"},
		"server": {"visibility": "public", "owner_id": "carol"},
	}
	refusal(object.union(request("carol", call("search")), forged), 7) == "the server is not visible to the user"
}

# Resources and prompts

test_resource_by_scheme if {
	document := request("bob", message("resources/read", {"uri": "docs://guide"}))
	ask(document) == {"allowed": true, "reason": "a role shows resources of low sensitivity", "cache_ttl": 60}
}

test_sensitive_resource_needs_the_second_factor if {
	document := request("bob", message("resources/read", {"uri": "file:///etc/motd"}))
	refusal(document, 7) == "resources of high sensitivity need multi-factor authentication"
	grant(verified(document)) == "a role shows resources of high sensitivity"
}

test_resource_that_no_role_shows if {
	document := request("bob", message("resources/read", {"uri": "vault://key"}))
	refusal(document, 7) == "no role shows resources of critical sensitivity"
}

test_unknown_resources if {
	every params in [{"uri": "ftp://x"}, {"uri": ""}, {"uri": "docs-and-more"}, {"uri": 7}, {}] {
		document := request("bob", message("resources/read", params))
		refusal(document, 7) == "what the message asks for is not known"
	}
}

test_prompt_by_name if {
	grant(request("bob", message("prompts/get", {"name": "summarize"}))) == "a role shows prompts of low sensitivity"
}

test_prompt_that_no_role_shows if {
	document := request("bob", message("prompts/get", {"name": "secret_plan"}))
	refusal(document, 7) == "no role shows prompts of critical sensitivity"
}

test_prompt_on_an_endpoint_that_the_role_does_not_see if {
	document := request("carol", message("prompts/get", {"name": "summarize"}))
	refusal(document, 7) == "no role shows prompts of low sensitivity"
}

test_unknown_prompt if {
	refusal(request("bob", message("prompts/get", {"name": "x"})), 7) == "what the message asks for is not known"
}

# Sessions

test_methods_of_any_session if {
	grant(request("carol", {"jsonrpc": "2.0", "id": 1, "method": "ping"})) == "the method is part of any session"
}

test_unknown_methods if {
	every method in ["tools/delete", "", 7, "Tools/Call"] {
		refusal(request("bob", message(method, {})), 7) == "the MCP method is not known"
	}
}

test_answer_of_the_client if {
	grant(request("bob", {"jsonrpc": "2.0", "id": 3, "result": {}})) == "the message answers the server"
}

test_stream_and_end_of_a_session if {
	every method in ["GET", "DELETE"] {
		document := {"attributes": {"request": {"http": {"method": method}}}}
		grant(object.union(request("bob", null), document)) == "the session is the user's"
		rejection(object.union(request("eve", null), document)) == "the user is not known"
	}
}

test_other_http_methods if {
	document := {"attributes": {"request": {"http": {"method": "PUT"}}}}
	refusal(object.union(request("bob", call("search")), document), 7) == "MCP messages are sent with POST"
	missing := json.remove(request("bob", call("search")), ["attributes/request/http/method"])
	refusal(missing, 7) == "MCP messages are sent with POST"
}

# Bodies

test_truncated_body if {
	document := object.union(request("bob", call("echo")), {"truncated_body": true})
	refusal(document, 7) == "the body did not arrive whole"
	rejection(json.remove(document, ["parsed_body"])) == "the body did not arrive whole"
}

test_bodies_that_are_no_message if {
	every body in [null, [], [call("echo")], "x", 7, {}, {"id": null, "method": "ping"}, {"jsonrpc": "1.0"}] {
		rejection(request("bob", body)) == "the body is not one JSON-RPC 2.0 message"
	}
	rejection(json.remove(request("bob", null), ["parsed_body"])) == "the body is not one JSON-RPC 2.0 message"
}

# Users

test_no_user if {
	document := json.remove(request("", call("echo")), ["attributes/request/http/headers/x-sark-user"])
	refusal(document, 7) == "the request names no user"
}

test_unknown_user if refusal(request("eve", call("echo")), 7) == "the user is not known"

test_suspended_user if refusal(request("mallory", call("echo")), 7) == "the user is suspended"
