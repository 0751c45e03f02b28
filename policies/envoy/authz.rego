# METADATA
# title: HTTP through Envoy
# description: >-
#   The document and the result are those of OPA's Envoy plugin. A path of data.catalog.mcp.endpoints speaks MCP and is
#   judged by its message; any other is a route: a method and the first segment of the path, open to roles.
#   The identity header must come from who authenticates, never from the client: let Envoy remove what clients send.
package envoy.authz

import data.envoy.mcp
import data.envoy.request

# METADATA
# title: May this HTTP request pass?
# description: >-
#   allowed, reason, cache_ttl; for a refusal also http_status, headers and body, in a form that its client understands.
# entrypoint: true
allow := mcp.answer if request.endpoint

else := {
	"allowed": false,
	"reason": refusal,
	"cache_ttl": data.catalog.defaults.http_cache_ttl,
	"http_status": 403,
	"headers": {"content-type": "application/json"},
	"body": json.marshal({"error": refusal}),
} if {
	refusal
}

else := {"allowed": true, "reason": "the route is open", "cache_ttl": data.catalog.defaults.http_cache_ttl}

refusal := "the path is ambiguous" if request.ambiguous_path

else := "the route is not known" if not route

else := "the request names no user" if {
	not route.anyone
	not request.user_id
}

else := "the user is not known" if {
	not route.anyone
	not request.user
}

else := "the user is suspended" if {
	not route.anyone
	data.directory.suspended[request.user_id]
}

else := "the route is not open to a role of the user" if {
	not route.anyone
	not open_to_user
}

route := data.catalog.routes[input.parsed_path[0]][input.attributes.request.http.method]

open_to_user if {
	some role in request.user.roles
	route[role]
}
