# METADATA
# title: Tool invocation
# description: >-
#   May this user call this tool? What refuses comes first and wins over what grants; without a grant the answer is no.
#   Both lists are ordered from cheap to dear and end at the first that applies.
package sark.mcp.tool

import data.sark.hours
import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user call this tool?
# description: >-
#   allow, reason, cache_ttl; where the tool or its level says so also remove_parameters and redact_parameters,
#   paths below the parameters of the call. A gateway names the tool in tool_name.
decision := answer if answer := judged(input.user.id, input.tool.name)

else := answer if answer := judged(input.user.id, input.tool_name)

else := refused("the request names no user", 0) if not input.user.id

else := refused("the request names no tool", 0)

judged(id, tool) := answer if {
	level := resource.tool_level(tool, data.catalog.defaults.sensitivity_level)
	environment := resource.environment(data.catalog.defaults.environment)
	visibility := resource.visibility(data.catalog.defaults.visibility)
	answer := answered(id, tool, environment, visibility, level, data.catalog.levels[level])
}

else := refused("the tool's sensitivity level is not known", 0)

answered(id, tool, environment, visibility, level, rules) := refused(reason, rules.cache_ttl) if {
	reason := denial(id, tool, environment, visibility, level, rules)
}

else := permitted(tool, level, rules, reason) if reason := grant(id, tool, environment, level)

else := refused(reason, rules.cache_ttl) if {
	reason := concat("", ["nothing grants tools of ", level, " sensitivity in ", environment])
}

denial(id, tool, environment, visibility, level, rules) := reason if reason := principal.refusal(id)

else := "the tool's name is not a name" if not principal.named(tool)

else := "the tool is blocked" if data.catalog.tools[tool].blocked

else := "the server is not active" if input.server.status != "active"

else := "the server's environment is not known" if not data.catalog.environments[environment]

else := "the server is not visible to the user" if not resource.visible(id, visibility)

else := concat("", ["tools of ", level, " sensitivity need multi-factor authentication"]) if {
	rules.mfa
	not input.user.mfa_verified == true
}

grant(id, tool, environment, level) := reason if {
	principal.role_allows_in("invoke", environment, level)
	reason := concat("", ["a role grants tools of ", level, " sensitivity in ", environment])
}

else := "a team of the user was granted the tool" if principal.team_grants(tool)

else := "the user owns or manages the tool" if resource.owns_tool(id)

else := "the user owns the server or is in its team" if resource.owns_server(id)

else := "the user has the permission" if principal.has_permission("tool:invoke", tool)

permitted(tool, level, rules, reason) := allowed(tool, rules, reason, rules.cache_ttl) if not rules.hours

# The clock comes last, because asking it takes longer than all the rest. An answer that it shaped holds no longer than
# the hours that it found.
else := answer if {
	window := hours.state(data.catalog.hours[rules.hours])
	cache_ttl := min([rules.cache_ttl, window.for])
	answer := in_window(tool, level, rules, reason, window.open, cache_ttl)
}

else := refused("the working hours are not known", 0)

in_window(tool, level, rules, reason, open, cache_ttl) := allowed(tool, rules, reason, cache_ttl) if open

else := allowed(tool, rules, reason, cache_ttl) if principal.role_allows("may", "any_hour")

else := refused(why, cache_ttl) if {
	why := concat("", ["tools of ", level, " sensitivity are closed outside of working hours"])
}

allowed(tool, rules, reason, cache_ttl) := {
	"allow": true,
	"reason": reason,
	"cache_ttl": cache_ttl,
	"remove_parameters": paths("remove", tool, rules),
	"redact_parameters": paths("redact", tool, rules),
} if filtered(tool, rules)

else := {"allow": true, "reason": reason, "cache_ttl": cache_ttl}

filtered(tool, rules) if rules.parameters

else if data.catalog.tools[tool].parameters

paths(kind, tool, rules) := array.concat(
	object.get(rules, ["parameters", kind], []),
	object.get(data.catalog.tools, [tool, "parameters", kind], []),
)

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
