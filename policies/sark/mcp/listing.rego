# METADATA
# title: Listing
# description: >-
#   What may this user know of? Asked of one tool or server at a time, or, with neither, whether there is any point in
#   asking. Reads no clock.
package sark.mcp.listing

import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user see this tool or server?
# description: allow, reason, cache_ttl. A gateway names the tool in tool_name.
decision := answer if answer := judged(input.user.id, input.action)

else := refused("the request names no user", 0) if not input.user.id

else := refused("the request names no action", 0)

judged(id, action) := answer if {
	visibility := resource.visibility(data.catalog.defaults.visibility)
	answer := answered(id, action, visibility, data.catalog.defaults.list_cache_ttl)
}

answered(id, action, visibility, cache_ttl) := refused(reason, cache_ttl) if {
	reason := denial(id, action, visibility)
}

else := {"allow": true, "reason": reason, "cache_ttl": cache_ttl} if reason := grant(id, action)

else := refused("nothing lets the user see it", cache_ttl)

denial(id, action, visibility) := reason if reason := principal.refusal(id)

else := "the request lists neither tools nor servers" if not action in {"server:list", "tool:list"}

else := "the server is not visible to the user" if not resource.visible(id, visibility)

grant(id, action) := reason if {
	action == "tool:list"
	reason := tool_grant(id, input.tool.name)
}

else := reason if {
	action == "tool:list"
	reason := tool_grant(id, input.tool_name)
}

else := concat("", ["a role shows servers of ", level, " sensitivity"]) if {
	action == "server:list"
	names_server
	level := resource.server_level(data.catalog.defaults.sensitivity_level)
	principal.role_allows("list", level)
}

else := "the user owns the server or is in its team" if resource.owns_server(id)

else := "the user may list" if not names_something

tool_grant(id, tool) := concat("", ["a role shows tools of ", level, " sensitivity"]) if {
	level := resource.tool_level(tool, data.catalog.defaults.sensitivity_level)
	principal.role_allows("list", level)
}

else := "a team of the user was granted the tool" if principal.team_grants(tool)

else := "the user owns or manages the tool" if resource.owns_tool(id)

else := "the user has the permission" if principal.has_permission("tool:invoke", tool)

names_server if input.server.name != null

else if input.server.id != null

names_something if input.tool.name != null

else if input.tool_name != null

else if input.tool.id != null

else if names_server

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
