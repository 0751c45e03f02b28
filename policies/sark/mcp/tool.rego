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
#   paths below the parameters of the call.
# entrypoint: true
decision := {"allow": false, "reason": denial, "cache_ttl": cache_ttl} if denial

else := object.union({"allow": true, "reason": grant, "cache_ttl": cache_ttl}, filters) if grant

else := {"allow": false, "reason": reason, "cache_ttl": cache_ttl} if {
	reason := concat("", ["nothing grants tools of ", level, " sensitivity in ", resource.environment])
}

level := resource.tool_level

sensitivity := data.catalog.levels[level]

denial := principal.refusal if principal.refusal

else := "the request names no tool" if not resource.tool_name

else := "the tool is blocked" if resource.catalogued.blocked

else := "the tool's sensitivity level is not known" if not level

else := "the server's environment is not known" if not resource.environment

else := "the server is not active" if input.server.status != "active"

else := "the server is not visible to the user" if not resource.visible

else := concat("", ["tools of ", level, " sensitivity need multi-factor authentication"]) if mfa_missing

else := concat("", ["tools of ", level, " sensitivity are closed outside of working hours"]) if out_of_hours

mfa_missing if {
	sensitivity.mfa
	not input.user.mfa_verified == true
}

out_of_hours if {
	sensitivity.hours
	not schedule.open
	not principal.role_has("any_hour")
}

schedule := hours.state(data.catalog.hours[sensitivity.hours])

grant := concat("", ["a role grants tools of ", level, " sensitivity in ", resource.environment]) if {
	principal.role_grants("invoke", resource.environment, level)
}

else := "a team of the user was granted the tool" if principal.team_grants(resource.tool_name)

else := "the user owns or manages the tool" if resource.owns_tool

else := "the user owns the server or is in its team" if resource.owns_server

else := "the user has the permission" if principal.has_permission("tool:invoke", resource.tool_name)

# An answer that looked at the clock holds no longer than the hours that it found.
cache_ttl := sensitivity.cache_ttl if not sensitivity.hours

else := min([sensitivity.cache_ttl, schedule.for]) if schedule

else := 0

filters := {"remove_parameters": removed, "redact_parameters": redacted} if count(removed) + count(redacted) > 0

else := {}

removed := paths("remove_parameters")

redacted := paths("redact_parameters")

paths(field) := array.concat(object.get(sensitivity, field, []), object.get(resource.catalogued, field, [])) if {
	resource.catalogued
}

else := object.get(sensitivity, field, [])
