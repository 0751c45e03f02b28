# METADATA
# title: What all actions look at
# description: The user with roles and teams, and the server with its environment, visibility and owner.
package bench.rules.common

roles contains role if some role in input.user.roles

roles contains input.user.role

teams contains team if some team in input.user.teams

teams contains team if some team in input.user.team_ids

deny contains "the user's id is not a name" if not named(input.user.id)

deny contains "the user is suspended" if data.directory.suspended[input.user.id]

deny contains "the user is not active" if input.user.status != "active"

named(value) if {
	is_string(value)
	value != ""
}

default environment := "production"

environment := input.server.environment

default visibility := "internal"

visibility := input.server.visibility

default server_level := "high"

server_level := data.catalog.sensitivity[input.server.sensitivity_level]

owns_server if input.server.owner_id == input.user.id

owns_server if input.server.managed_by_team in teams

owns_server if input.server.team_id in teams

owns_tool if input.tool.owner == input.user.id

owns_tool if input.user.id in input.tool.managers

visible if {
	some role in roles
	data.directory.roles[role].sees[visibility]
}

visible if owns_server

visible if owns_tool

may_list(level) if {
	some role in roles
	data.directory.roles[role].list[level]
}

may_invoke(level) if {
	some role in roles
	data.directory.roles[role].invoke[environment][level]
}

may_register(level) if {
	some role in roles
	data.directory.roles[role].register[environment][level]
}

may_register_for_others if {
	some role in roles
	data.directory.roles[role].may.register_for_others
}

team_grants(tool) if {
	some team in teams
	data.directory.teams[team].tools[tool]
}

permitted(action, name) if concat(":", [action, name]) in input.user.permissions

permitted(action, _) if concat(":", [action, "*"]) in input.user.permissions

answer(deny, grants, cache_ttl) := {"allow": true, "reason": concat("; ", sort(grants)), "cache_ttl": cache_ttl} if {
	count(deny) == 0
	count(grants) > 0
}

answer(deny, _, cache_ttl) := {"allow": false, "reason": concat("; ", sort(deny)), "cache_ttl": cache_ttl} if {
	count(deny) > 0
}

answer(deny, grants, cache_ttl) := {"allow": false, "reason": "nothing grants it", "cache_ttl": cache_ttl} if {
	count(deny) == 0
	count(grants) == 0
}
