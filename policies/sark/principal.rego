# METADATA
# title: The principal
# description: >-
#   Who asks, from input.user: what refuses a user whatever is asked, and what roles, teams and permissions grant.
#   Helpers are functions here and below: in WebAssembly a call of one costs a fifth of a look at a rule without
#   arguments, whose value is kept for a second look.
package sark.principal

# METADATA
# title: Why the user of this id is refused whatever is asked
# description: Undefined for a user in good standing.
refusal(id) := "the user's id is not a name" if not named(id)

else := "the user is suspended" if data.directory.suspended[id]

else := "the user is not active" if {
	input.user.status != "active"
}

named(id) if {
	is_string(id)
	id != ""
}

# METADATA
# title: A role of the user has this value of this kind
# description: For instance sees internal, list medium, may any_hour.
role_allows(kind, value) if data.directory.roles[input.user.role][kind][value]

else if {
	some role in input.user.roles
	data.directory.roles[role][kind][value]
}

# METADATA
# title: A role of the user allows this in the environment and at the sensitivity level
# description: For instance invoke or register.
role_allows_in(kind, environment, level) if data.directory.roles[input.user.role][kind][environment][level]

else if {
	some role in input.user.roles
	data.directory.roles[role][kind][environment][level]
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
