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
	not answer.json_rpc_error
}

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allowed == false
	answer.json_rpc_error == {"code": -32003, "message": concat("", ["refused by policy: ", answer.reason])}
	not answer.body
	not answer.http_status
}

# Calls

test_call_of_a_tool if {
	ask(request("bob", call("search"))) == {
		"allowed": true,
		"reason": "a role grants tools of medium sensitivity in production",
		"cache_ttl": 30,
	}
}

test_refused_call if refusal(request("carol", call("search"))) == "the server is not visible to the user"

# Every call has another one, and an answer that depended on it could not be kept.
test_the_id_changes_nothing if {
	document := request("carol", call("search"))
	every id in [0, "seven", null, {"a": 1}] {
		ask(object.union(document, {"parsed_body": {"id": id}})) == ask(document)
	}
}

test_sensitive_tool_needs_the_second_factor if {
	document := request("bob", call("deploy"))
	refusal(document) == "tools of high sensitivity need multi-factor authentication"
	grant(verified(document)) == "a role grants tools of high sensitivity in production"
	yes := {"attributes": {"request": {"http": {"headers": {"x-sark-mfa": "yes"}}}}}
	refusal(object.union(document, yes)) == "tools of high sensitivity need multi-factor authentication"
}

proven_by(principal) := object.union(request("bob", call("deploy")), {
	"user": {"id": "bob"},
	"principal": object.union({"id": "bob"}, principal),
})

# Where it is verified who asks, anybody can write the header.
test_second_factor_of_who_was_proven_otherwise if {
	every principal in [{"method": "jwt", "claims": {}}, {"method": "mtls", "claims": {}}] {
		reason := "tools of high sensitivity need multi-factor authentication"
		refusal(verified(proven_by(principal))) == reason
	}
	refusal(object.union(verified(request("bob", call("deploy"))), {"user": null, "principal": {"method": "none"}})) == "the request names no user"
}

test_second_factor_of_a_trusted_header if {
	document := proven_by({"method": "header", "claims": {}})
	refusal(document) == "tools of high sensitivity need multi-factor authentication"
	grant(verified(document)) == "a role grants tools of high sensitivity in production"
}

test_second_factor_of_a_token if {
	grant(proven_by({"method": "jwt", "claims": {"amr": ["pwd", "mfa"]}})) == "a role grants tools of high sensitivity in production"
	every amr in [["pwd", "otp"], [], "mfa", ["MFA"], null, true, 7] {
		reason := "tools of high sensitivity need multi-factor authentication"
		refusal(verified(proven_by({"method": "jwt", "claims": {"amr": amr}}))) == reason
	}
	mtls := proven_by({"method": "mtls", "claims": {"amr": ["mfa"]}})
	refusal(mtls) == "tools of high sensitivity need multi-factor authentication"
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
	refusal(request("bob", call("unheard_of"))) == "what the message asks for is not known"
	refusal(request("bob", message("tools/call", {}))) == "what the message asks for is not known"
	refusal(request("bob", message("tools/call", {"name": ["search"]}))) == "what the message asks for is not known"
}

test_tool_whose_parameters_need_a_filter if {
	refusal(request("bob", call("lookup"))) == "Envoy cannot take out the parameters that this tool must not get"
}

test_what_a_client_says_of_itself_counts_for_nothing if {
	forged := {
		"tool": {"name": "echo", "sensitivity_level": "low", "owner": "carol"},
		"server": {"visibility": "public", "owner_id": "carol"},
	}
	refusal(object.union(request("carol", call("search")), forged)) == "the server is not visible to the user"
}

# Resources and prompts

test_resource_by_scheme if {
	document := request("bob", message("resources/read", {"uri": "docs://guide"}))
	ask(document) == {"allowed": true, "reason": "a role shows resources of low sensitivity", "cache_ttl": 60}
}

test_sensitive_resource_needs_the_second_factor if {
	document := request("bob", message("resources/read", {"uri": "file:///etc/motd"}))
	refusal(document) == "resources of high sensitivity need multi-factor authentication"
	grant(verified(document)) == "a role shows resources of high sensitivity"
}

test_resource_that_no_role_shows if {
	document := request("bob", message("resources/read", {"uri": "vault://key"}))
	refusal(document) == "no role shows resources of critical sensitivity"
}

test_unknown_resources if {
	every params in [{"uri": "ftp://x"}, {"uri": ""}, {"uri": "docs-and-more"}, {"uri": 7}, {}] {
		document := request("bob", message("resources/read", params))
		refusal(document) == "what the message asks for is not known"
	}
}

test_prompt_by_name if {
	grant(request("bob", message("prompts/get", {"name": "summarize"}))) == "a role shows prompts of low sensitivity"
}

test_prompt_that_no_role_shows if {
	document := request("bob", message("prompts/get", {"name": "secret_plan"}))
	refusal(document) == "no role shows prompts of critical sensitivity"
}

test_prompt_on_an_endpoint_that_the_role_does_not_see if {
	document := request("carol", message("prompts/get", {"name": "summarize"}))
	refusal(document) == "the server is not visible to the user"
}

test_unknown_prompt if {
	refusal(request("bob", message("prompts/get", {"name": "x"}))) == "what the message asks for is not known"
}

# Completions and subscriptions

completion(ref) := message("completion/complete", {"ref": ref, "argument": {"name": "a", "value": "b"}})

test_completion_is_judged_as_what_it_is_for if {
	document := request("bob", completion({"type": "ref/prompt", "name": "summarize"}))
	grant(document) == "a role shows prompts of low sensitivity"
	secret := request("bob", completion({"type": "ref/prompt", "name": "secret_plan"}))
	refusal(secret) == "no role shows prompts of critical sensitivity"
	docs := request("bob", completion({"type": "ref/resource", "uri": "docs://{page}"}))
	grant(docs) == "a role shows resources of low sensitivity"
	vault := request("bob", completion({"type": "ref/resource", "uri": "vault://{key}"}))
	refusal(vault) == "no role shows resources of critical sensitivity"
}

test_completion_of_something_else if {
	every ref in [{"type": "ref/tool", "name": "summarize"}, {"name": "summarize"}, {"type": "ref/prompt", "uri": "docs://x"}] {
		refusal(request("bob", completion(ref))) == "what the message asks for is not known"
	}
}

test_subscription_to_one_resource if {
	grant(request("bob", message("resources/subscribe", {"uri": "docs://guide"}))) == "a role shows resources of low sensitivity"
	refusal(request("bob", message("resources/subscribe", {"uri": "vault://key"}))) == "no role shows resources of critical sensitivity"
}

listening(uris) := message("subscriptions/listen", {"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}})

test_subscription_to_several if {
	grant(request("bob", listening([]))) == "the resources may be read"
	grant(request("bob", listening(["docs://a", "docs://b"]))) == "the resources may be read"
	grant(request("bob", message("subscriptions/listen", {"notifications": {}}))) == "the resources may be read"
	refusal(request("bob", listening(["docs://a", "vault://b"]))) == "no role shows resources of critical sensitivity"
	refusal(request("bob", listening(["docs://a", "x"]))) == "what the message asks for is not known"
}

# What Envoy's mcp filter has read

noted(document, filter) := object.union(document, {"attributes": {"metadataContext": {"filterMetadata": {"envoy.filters.http.mcp": object.union(
	{"jsonrpc": "2.0", "is_mcp_request": true, "id": 7},
	filter,
)}}}})

unseen(user) := object.union(request(user, null), {"truncated_body": true})

test_message_that_only_the_filter_has_read if {
	bodiless := request("bob", null)
	call_of_search := {"method": "tools/call", "params": {"name": "search"}}
	grant(noted(bodiless, call_of_search)) == "a role grants tools of medium sensitivity in production"
	grant(noted(unseen("bob"), call_of_search)) == "a role grants tools of medium sensitivity in production"
	refusal(noted(request("carol", null), call_of_search)) == "the server is not visible to the user"
	every params in [{"uri": "vault://key"}, {"uri": "VAULT:key"}] {
		filter := {"method": "resources/read", "params": params}
		refusal(noted(bodiless, filter)) == "no role shows resources of critical sensitivity"
	}
	prompt := {"method": "completion/complete", "params": {"ref": {"type": "ref/prompt", "name": "summarize"}}}
	grant(noted(bodiless, prompt)) == "a role shows prompts of low sensitivity"
	resource := {"method": "completion/complete", "params": {"ref": {"type": "ref/resource", "uri": "docs://{x}"}}}
	grant(noted(bodiless, resource)) == "a role shows resources of low sensitivity"
	grant(noted(bodiless, {"method": "__jsonrpc_response"})) == "the message answers the server"
	refusal(noted(bodiless, {"method": "subscriptions/listen"})) == "what the message asks for is not known"
	refusal(noted(bodiless, {"jsonrpc": "1.0", "method": "ping"})) == "the body is not one JSON-RPC 2.0 message"
}

test_message_that_the_filter_has_read_in_part if {
	filter := {"method": "ping", "is_exceeding_limit": true}
	refusal(noted(unseen("bob"), filter)) == "the body did not arrive whole"
	grant(noted(request("bob", call("echo")), filter)) == "a role grants tools of low sensitivity in production"
}

test_message_that_both_have_read if {
	document := request("bob", call("echo"))
	reason := "a role grants tools of low sensitivity in production"
	grant(noted(document, {"method": "tools/call", "params": {"name": "echo"}})) == reason
	grant(noted(document, {"method": "tools/call"})) == reason
	answer := request("bob", {"jsonrpc": "2.0", "id": 3, "result": {}})
	grant(noted(answer, {"method": "__jsonrpc_response"})) == "the message answers the server"
}

test_messages_that_are_read_differently if {
	differently := "Envoy and the decision point read the message differently"
	document := request("bob", call("echo"))
	refusal(noted(document, {"method": "ping"})) == differently
	refusal(noted(document, {"method": "tools/call", "params": {"name": "deploy"}})) == differently
	reading := request("bob", message("resources/read", {"uri": "docs://a"}))
	refusal(noted(reading, {"method": "resources/read", "params": {"uri": "docs://b"}})) == differently
	answer := request("bob", {"jsonrpc": "2.0", "id": 3, "result": {}})
	refusal(noted(answer, {"method": "tools/call"})) == differently
}

# Sessions

test_methods_of_any_session if {
	grant(request("carol", {"jsonrpc": "2.0", "id": 1, "method": "ping"})) == "the method is part of any session"
}

test_unknown_methods if {
	every method in ["tools/delete", "", 7, "Tools/Call"] {
		refusal(request("bob", message(method, {}))) == "the MCP method is not known"
	}
}

test_answer_of_the_client if {
	grant(request("bob", {"jsonrpc": "2.0", "id": 3, "result": {}})) == "the message answers the server"
}

test_stream_and_end_of_a_session if {
	every method in ["GET", "DELETE"] {
		document := {"attributes": {"request": {"http": {"method": method}}}}
		grant(object.union(request("bob", null), document)) == "the session is the user's"
		refusal(object.union(request("eve", null), document)) == "the user is not known"
	}
}

test_other_http_methods if {
	document := {"attributes": {"request": {"http": {"method": "PUT"}}}}
	refusal(object.union(request("bob", call("search")), document)) == "MCP messages are sent with POST"
	missing := json.remove(request("bob", call("search")), ["attributes/request/http/method"])
	refusal(missing) == "MCP messages are sent with POST"
}

# Bodies

test_truncated_body if {
	document := object.union(request("bob", call("echo")), {"truncated_body": true})
	refusal(document) == "the body did not arrive whole"
	refusal(json.remove(document, ["parsed_body"])) == "the body did not arrive whole"
}

test_bodies_that_are_no_message if {
	every body in [null, [], [call("echo")], "x", 7, {}, {"id": null, "method": "ping"}, {"jsonrpc": "1.0"}] {
		refusal(request("bob", body)) == "the body is not one JSON-RPC 2.0 message"
	}
	refusal(json.remove(request("bob", null), ["parsed_body"])) == "the body is not one JSON-RPC 2.0 message"
}

# Users

test_no_user if {
	document := json.remove(request("", call("echo")), ["attributes/request/http/headers/x-sark-user"])
	refusal(document) == "the request names no user"
}

test_unknown_user if refusal(request("eve", call("echo"))) == "the user is not known"

test_suspended_user if refusal(request("mallory", call("echo"))) == "the user is suspended"
