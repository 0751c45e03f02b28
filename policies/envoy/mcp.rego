# METADATA
# title: MCP through Envoy
# description: >-
#   Judges one JSON-RPC message by the rules of sark.mcp. What is refused is answered as the server would answer it, so
#   that the client's call fails with a reason and its session lives on.
package envoy.mcp

import data.envoy.request
import data.sark.mcp.tool

# METADATA
# title: The answer to an MCP request, in the result shape of OPA's Envoy plugin
# description: >-
#   The endpoint is an entry of data.catalog.mcp.endpoints. A refused call is answered with HTTP 200 and a JSON-RPC
#   error under its id. What has no id is no call, and is answered with HTTP 403.
answer(endpoint) := shaped(judged(endpoint, data.catalog.defaults.http_cache_ttl))

shaped(verdict) := {"allowed": true, "reason": verdict.reason, "cache_ttl": verdict.cache_ttl} if verdict.allow

else := {
	"allowed": false,
	"reason": verdict.reason,
	"cache_ttl": verdict.cache_ttl,
	"http_status": http_status(id),
	"headers": {"content-type": "application/json"},
	"body": json.marshal({
		"jsonrpc": "2.0",
		"id": id,
		"error": {"code": -32001, "message": concat("", ["refused by policy: ", verdict.reason])},
	}),
} if {
	id := call_id(null)
}

call_id(_) := input.parsed_body.id if is_string(input.parsed_body.id)

else := input.parsed_body.id if is_number(input.parsed_body.id)

else := null

http_status(id) := 403 if id == null

else := 200

judged(endpoint, cache_ttl) := refused(request.refusal, cache_ttl) if request.refusal

# The client's end of the stream of events, and the end of the session.
else := allowed("the session is the user's", cache_ttl) if input.attributes.request.http.method in {"DELETE", "GET"}

else := refused("MCP messages are sent with POST", cache_ttl) if not input.attributes.request.http.method == "POST"

else := refused("the body did not arrive whole", cache_ttl) if input.truncated_body

else := refused("the body is not one JSON-RPC 2.0 message", cache_ttl) if not input.parsed_body.jsonrpc == "2.0"

else := verdict if verdict := of_kind(data.catalog.mcp.methods[input.parsed_body.method], endpoint, cache_ttl)

else := allowed("the message answers the server", cache_ttl) if not has_method

else := refused("the MCP method is not known", cache_ttl)

# A client answers what the server asks of it with a message that has no method.
has_method if input.parsed_body.method != null

of_kind(kind, endpoint, cache_ttl) := allowed("the method is part of any session", cache_ttl) if kind == "session"

else := verdict if {
	kind == "tool"
	verdict := of_tool(input.parsed_body.params.name, endpoint, cache_ttl)
}

else := verdict if {
	kind == "resource"
	scheme := split(input.parsed_body.params.uri, ":")[0]
	verdict := of_level("resources", data.catalog.mcp.resources[scheme], endpoint)
}

else := verdict if {
	kind == "prompt"
	verdict := of_level("prompts", data.catalog.mcp.prompts[input.parsed_body.params.name], endpoint)
}

else := refused("what the message asks for is not known", cache_ttl)

of_tool(name, endpoint, cache_ttl) := verdict if {
	data.catalog.tools[name]
	verdict := passable(invocation(name, endpoint), cache_ttl)
}

passable(verdict, cache_ttl) := refused(reason, cache_ttl) if {
	verdict.remove_parameters
	reason := "Envoy cannot take out the parameters that this tool must not get"
}

else := verdict

# The parts of the input are replaced one by one: a policy that replaces the whole is taken to read the whole.
invocation(name, endpoint) := decision if {
	decision := tool.decision with input.user as user
		with input.tool as {"name": name}
		with input.server as endpoint
}

user := object.union(request.user, {"id": request.user_id, "mfa_verified": request.mfa_verified})

of_level(plural, level, endpoint) := refused(reason, data.catalog.levels[level].cache_ttl) if {
	not shows(level, endpoint)
	reason := concat("", ["no role shows ", plural, " of ", level, " sensitivity"])
}

else := refused(reason, data.catalog.levels[level].cache_ttl) if {
	data.catalog.levels[level].mfa
	not request.mfa_verified
	reason := concat("", [plural, " of ", level, " sensitivity need multi-factor authentication"])
}

else := allowed(reason, data.catalog.levels[level].cache_ttl) if {
	reason := concat("", ["a role shows ", plural, " of ", level, " sensitivity"])
}

shows(level, endpoint) if {
	some role in request.user.roles
	data.directory.roles[role].sees[endpoint.visibility]
	data.directory.roles[role].list[level]
}

allowed(reason, cache_ttl) := {"allow": true, "reason": reason, "cache_ttl": cache_ttl}

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
