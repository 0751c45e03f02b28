# METADATA
# title: MCP through Envoy
# description: >-
#   Judges one JSON-RPC message by the rules of sark.mcp. What is refused is answered as the server would answer it, so
#   that the client's call fails with a reason and its session lives on.
package envoy.mcp

import data.envoy.request
import data.sark.mcp.tool
import data.sark.principal

# METADATA
# title: The answer to an MCP request in the result shape of OPA's Envoy plugin
# description: >-
#   A refused call is answered with HTTP 200 and a JSON-RPC error under its id. What has no id is no call, and is
#   answered with HTTP 403.
answer := {
	"allowed": false,
	"reason": verdict.reason,
	"cache_ttl": verdict.cache_ttl,
	"http_status": http_status,
	"headers": {"content-type": "application/json"},
	"body": json.marshal({
		"jsonrpc": "2.0",
		"id": id,
		"error": {"code": -32001, "message": concat("", ["refused by policy: ", verdict.reason])},
	}),
} if not verdict.allow

else := {"allowed": true, "reason": verdict.reason, "cache_ttl": verdict.cache_ttl}

id := input.parsed_body.id if is_string(input.parsed_body.id)

else := input.parsed_body.id if is_number(input.parsed_body.id)

else := null

http_status := 403 if id == null

else := 200

verdict := refused(standing) if standing

else := {"allow": true, "reason": "the session is the user's", "cache_ttl": cache_ttl} if opens_or_ends_session

else := refused("MCP messages are sent with POST") if input.attributes.request.http.method != "POST"

else := refused("the body did not arrive whole") if input.truncated_body

else := refused("the body is not one JSON-RPC 2.0 message") if not input.parsed_body.jsonrpc == "2.0"

else := {"allow": true, "reason": "the message answers the server", "cache_ttl": cache_ttl} if answers_server

else := refused("the MCP method is not known") if not kind

else := {"allow": true, "reason": "the method is part of any session", "cache_ttl": cache_ttl} if kind == "session"

else := of_tool if kind == "tool"

else := of_level("resources", data.catalog.mcp.resources[scheme]) if kind == "resource"

else := of_level("prompts", data.catalog.mcp.prompts[name]) if kind == "prompt"

else := refused("what the message asks for is not known")

cache_ttl := data.catalog.defaults.http_cache_ttl

refused(reason) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}

standing := "the request names no user" if not request.user_id

else := "the user is not known" if not request.user

else := reason if {
	reason := principal.refusal with input.user as request.user
}

# The client's end of the stream of events, and the end of the session.
opens_or_ends_session if input.attributes.request.http.method in {"GET", "DELETE"}

# A client answers what the server asks of it with a message that has no method.
answers_server if not has_method

has_method if input.parsed_body.method != null

kind := data.catalog.mcp.methods[input.parsed_body.method]

name := input.parsed_body.params.name

scheme := split(input.parsed_body.params.uri, ":")[0]

of_tool := refused("the tool is not known") if not tool_known

else := refused("the tool's parameters need a filter, which does not exist on this way") if called.remove_parameters

else := called

tool_known if data.catalog.tools[name]

# The parts of the input are replaced one by one: a policy that replaces the whole is taken to read the whole.
called := decision if {
	decision := tool.decision with input.user as request.user
		with input.tool as {"name": name}
		with input.server as request.endpoint
}

of_level(plural, level) := refused(concat("", ["no role shows ", plural, " of ", level, " sensitivity"])) if {
	not granted(level)
}

else := refused(concat("", [plural, " of ", level, " sensitivity need multi-factor authentication"])) if {
	data.catalog.levels[level].mfa
	not request.mfa_verified
}

else := {
	"allow": true,
	"reason": concat("", ["a role shows ", plural, " of ", level, " sensitivity"]),
	"cache_ttl": data.catalog.levels[level].cache_ttl,
}

granted(level) if {
	principal.role_grants("list", request.endpoint.visibility, level) with input.user as request.user
}
