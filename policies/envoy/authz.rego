# METADATA
# title: HTTP through Envoy
# description: >-
#   The document and the result are those of OPA's Envoy plugin. A path of data.catalog.mcp.endpoints speaks MCP and is
#   judged by its message; any other is a route, a method and the first segment of the path, that is open to roles.
#   The identity header must come from who authenticates, never from the client: let Envoy remove what clients send.
package envoy.authz

import data.envoy.mcp
import data.envoy.request

# METADATA
# title: May this HTTP request pass?
# description: >-
#   allowed, reason, cache_ttl; for a refusal also http_status, headers and body, in a form that its client understands.
# entrypoint: true
allow := answer if answer := mcp.answer(data.catalog.mcp.endpoints[concat("/", input.parsed_path)])

else := refused("the path is ambiguous") if request.ambiguous_path

else := answer if answer := answered(data.catalog.routes[input.parsed_path[0]][input.attributes.request.http.method])

else := refused("the route is not known")

answered(route) := allowed("the route is open to anyone") if route.anyone

else := refused(request.refusal) if request.refusal

else := allowed("the route is open to a role of the user") if {
	some role in request.user.roles
	route[role]
}

else := refused("the route is not open to a role of the user")

allowed(reason) := {"allowed": true, "reason": reason, "cache_ttl": data.catalog.defaults.http_cache_ttl}

refused(reason) := {
	"allowed": false,
	"reason": reason,
	"cache_ttl": data.catalog.defaults.http_cache_ttl,
	"http_status": 403,
	"headers": {"content-type": "application/json"},
	"body": json.marshal({"error": reason}),
}
