# METADATA
# title: The principal
# description: >-
#   Who asks, from input.user: what refuses a user whatever is asked, and what roles, teams and permissions grant.
#   The grants of roles are tables in data.directory.roles, by role, action, scope and sensitivity level.
package sark.principal

# METADATA
# title: The user's id
# description: Undefined where the request names no user.
id := input.user.id if {
	is_string(input.user.id)
	input.user.id != ""
}

# METADATA
# title: Why this user is refused whatever is asked
# description: Undefined for a user in good standing.
refusal := "the request names no user" if not id

else := "the user is suspended" if data.directory.suspended[id]

else := "the user is not active" if input.user.status != "active"

else := "no role of the user is known" if not has_known_role

has_known_role if data.directory.roles[input.user.role]

else if {
	some role in input.user.roles
	data.directory.roles[role]
}

# METADATA
# title: A role of the user grants the action in this scope and at this level
role_grants(action, scope, level) if data.directory.roles[input.user.role][action][scope][level]

else if {
	some role in input.user.roles
	data.directory.roles[role][action][scope][level]
}

# METADATA
# title: A role of the user has this mark
# description: A mark is a field of the role that is true, such as any_hour.
role_has(mark) if data.directory.roles[input.user.role][mark] == true

else if {
	some role in input.user.roles
	data.directory.roles[role][mark] == true
}

# METADATA
# title: The user is a member of the team
in_team(team) if team in input.user.teams

else if team in input.user.team_ids

# METADATA
# title: A team of the user was granted the tool by name
team_grants(tool) if {
	some team in input.user.teams
	data.directory.teams[team].tools[tool]
}

else if {
	some team in input.user.team_ids
	data.directory.teams[team].tools[tool]
}

# METADATA
# title: The user holds the permission for this one thing or for all of its kind
has_permission(action, name) if concat(":", [action, name]) in input.user.permissions

else if concat(":", [action, "*"]) in input.user.permissions
