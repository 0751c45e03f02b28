# METADATA
# title: Listing
# description: >-
#   What may this user know of? Asked for one tool or server at a time, or, with neither, whether there is any point in
#   asking. Reads no clock.
package sark.mcp.listing

import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user see this tool or server?
# description: allow, reason, cache_ttl.
# entrypoint: true
decision := {"allow": false, "reason": denial, "cache_ttl": cache_ttl} if denial

else := {"allow": true, "reason": grant, "cache_ttl": cache_ttl} if grant

else := {"allow": false, "reason": "nothing lets the user see it", "cache_ttl": cache_ttl}

cache_ttl := data.catalog.defaults.list_cache_ttl

denial := principal.refusal if principal.refusal

else := "the request lists neither tools nor servers" if not lists_something

else := "the tool's sensitivity level is not known" if {
	lists_one_tool
	not resource.tool_level
}

else := "the server's sensitivity level is not known" if {
	lists_one_server
	not resource.server_level
}

else := "the server is not visible to the user" if {
	asks_for_one
	not resource.visible
}

lists_something if input.action in {"tool:list", "server:list"}

lists_one_tool if {
	input.action == "tool:list"
	resource.tool_name
}

lists_one_server if {
	input.action == "server:list"
	input.server.name
}

asks_for_one if lists_one_tool

else if lists_one_server

grant := "the user may list" if not asks_for_one

else := concat("", ["a role shows tools of ", resource.tool_level, " sensitivity"]) if {
	lists_one_tool
	principal.role_grants("list", resource.visibility, resource.tool_level)
}

else := concat("", ["a role shows servers of ", resource.server_level, " sensitivity"]) if {
	lists_one_server
	principal.role_grants("list", resource.visibility, resource.server_level)
}

else := "a team of the user was granted the tool" if {
	lists_one_tool
	principal.team_grants(resource.tool_name)
}

else := "the user owns or manages the tool" if {
	lists_one_tool
	resource.owns_tool
}

else := "the user owns the server or is in its team" if resource.owns_server

else := "the user has the permission" if {
	lists_one_tool
	principal.has_permission("tool:invoke", resource.tool_name)
}
