# METADATA
# title: MCP through Envoy
# description: >-
#   Judges one JSON-RPC message by the rules of sark.mcp. What is refused is answered as the server would answer it, so
#   that the client's call fails with a reason and its session lives on.
package envoy.mcp

import data.envoy.message
import data.envoy.request
import data.sark.mcp.content
import data.sark.mcp.tool

# METADATA
# title: The answer to an MCP request, in the result shape of OPA's Envoy plugin
# description: >-
#   The endpoint is an entry of data.catalog.mcp.endpoints. Of json_rpc_error the decision point makes the answer to a
#   refused call, under its id and with the id of the decision: HTTP 200. What has no id is no call: HTTP 403.
answer(endpoint) := shaped(judged(endpoint, data.catalog.defaults.http_cache_ttl))

shaped(verdict) := {"allowed": true, "reason": verdict.reason, "cache_ttl": verdict.cache_ttl} if verdict.allow

else := {
	"allowed": false,
	"reason": verdict.reason,
	"cache_ttl": verdict.cache_ttl,
	"json_rpc_error": {"code": -32003, "message": concat("", ["refused by policy: ", verdict.reason])},
}

judged(endpoint, cache_ttl) := refused(request.refusal, cache_ttl) if request.refusal

# The client's end of the stream of events, and the end of the session.
else := allowed("the session is the user's", cache_ttl) if input.attributes.request.http.method in {"DELETE", "GET"}

else := refused("MCP messages are sent with POST", cache_ttl) if not input.attributes.request.http.method == "POST"

else := refused(message.problem, cache_ttl) if message.problem

else := verdict if {
	source := message.source
	verdict := of_kind(data.catalog.mcp.methods[message.method(source)], source, endpoint, cache_ttl)
}

# A client answers what the server asks of it with a message that has no method.
else := allowed("the message answers the server", cache_ttl) if message.method(message.source) == "__jsonrpc_response"

else := refused("the MCP method is not known", cache_ttl)

of_kind("session", _, _, cache_ttl) := allowed("the method is part of any session", cache_ttl)

of_kind("tool", source, endpoint, cache_ttl) := verdict if {
	name := message.name(source)
	data.catalog.tools[name]
	verdict := passable(invocation(name, endpoint), cache_ttl)
}

else := not_known(cache_ttl)

of_kind("resource", source, endpoint, cache_ttl) := verdict if {
	verdict := of_uri(message.uri(source), endpoint, cache_ttl)
}

else := not_known(cache_ttl)

of_kind("prompt", source, endpoint, cache_ttl) := verdict if verdict := of_prompt(message.name(source), endpoint)

else := not_known(cache_ttl)

# What can be completed is seen: it is judged as if it were asked for.
of_kind("completion", source, endpoint, cache_ttl) := verdict if {
	message.reference(source) == "ref/prompt"
	verdict := of_prompt(message.reference_name(source), endpoint)
}

else := verdict if {
	message.reference(source) == "ref/resource"
	verdict := of_resource(message.reference_uri(source), endpoint)
}

else := not_known(cache_ttl)

of_kind("subscription", source, endpoint, cache_ttl) := refused(reason, cache_ttl) if {
	reason := [verdict.reason |
		some uri in message.subscriptions(source)
		verdict := of_uri(uri, endpoint, cache_ttl)
		not verdict.allow
	][0]
}

else := allowed("the resources may be read", cache_ttl) if source == "body"

else := not_known(cache_ttl)

of_uri(uri, endpoint, cache_ttl) := verdict if verdict := of_resource(uri, endpoint)

else := not_known(cache_ttl)

not_known(cache_ttl) := refused("what the message asks for is not known", cache_ttl)

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

# Other than a gateway that knows its servers, Envoy passes on only what the catalogue lists.
of_resource(uri, endpoint) := decision if {
	data.catalog.mcp.resources[content.scheme(uri)]
	decision := content.decision with input.action as "resource:read"
		with input.user as user
		with input.resource as {"uri": uri}
		with input.server as endpoint
}

of_prompt(name, endpoint) := decision if {
	data.catalog.mcp.prompts[name]
	decision := content.decision with input.action as "prompt:get"
		with input.user as user
		with input.prompt as {"name": name}
		with input.server as endpoint
}

user := object.union(request.user, {"id": request.user_id, "mfa_verified": request.mfa_verified})

allowed(reason, cache_ttl) := {"allow": true, "reason": reason, "cache_ttl": cache_ttl}

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
