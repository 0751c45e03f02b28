# METADATA
# title: Resources and prompts
# description: >-
#   May this user read this resource or get this prompt, or know of it? A resource is known by the scheme of its URI, a
#   prompt by its name; what the catalogue lacks counts as its server does. Reads no clock.
package sark.mcp.content

import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user read, get or see it?
# description: allow, reason, cache_ttl; of resource:read, resource:list, prompt:get and prompt:list.
decision := answer if answer := judged(input.user.id, input.action)

else := refused("the request names no user", 0) if not input.user.id

else := refused("the request names neither a resource nor a prompt", 0)

judged(id, "resource:read") := answered(id, "resources", scheme(input.resource.uri), false)

judged(id, "resource:list") := answered(id, "resources", scheme(input.resource.uri), true)

judged(id, "prompt:get") := answered(id, "prompts", input.prompt.name, false)

judged(id, "prompt:list") := answered(id, "prompts", input.prompt.name, true)

# METADATA
# title: The scheme of a URI
# description: Undefined where there is none. Capitals make no difference.
scheme(uri) := lower(parts[0]) if {
	parts := split(uri, ":")
	count(parts) > 1
}

answered(id, kind, name, listing) := of_level(id, kind, level, listing) if {
	is_string(name)
	name != ""
	level := catalogued(kind, name, data.catalog.defaults.sensitivity_level)
}

catalogued(kind, name, fallback) := level if {
	level := data.catalog.sensitivity[data.catalog.mcp[kind][name]]
}

else := resource.server_level(fallback)

# METADATA
# title: The same of one whose sensitivity level is known
# description: To know of it takes no second factor.
of_level(id, kind, level, listing) := refused(reason, data.catalog.levels[level].cache_ttl) if {
	reason := denial(id, kind, level, listing)
}

else := allowed(reason, data.catalog.levels[level].cache_ttl) if {
	reason := concat("", ["a role shows ", kind, " of ", level, " sensitivity"])
}

else := refused("the sensitivity level is not known", 0)

denial(id, kind, level, listing) := reason if reason := principal.refusal(id)

else := "the server is not active" if input.server.status != "active"

else := "the server is not visible to the user" if {
	not resource.visible(id, resource.visibility(data.catalog.defaults.visibility))
}

else := concat("", ["no role shows ", kind, " of ", level, " sensitivity"]) if not principal.role_allows("list", level)

else := concat("", [kind, " of ", level, " sensitivity need multi-factor authentication"]) if {
	not listing
	data.catalog.levels[level].mfa
	not input.user.mfa_verified == true
}

allowed(reason, cache_ttl) := {"allow": true, "reason": reason, "cache_ttl": cache_ttl}

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
