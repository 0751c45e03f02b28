# METADATA
# title: Server registration
# description: May this user register this server, for this owner and team, in this environment?
package sark.mcp.registration

import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user register this server?
# description: allow, reason, cache_ttl.
decision := answer if answer := judged(input.user.id, input.server.name)

else := refused("the request names no user", 0) if not input.user.id

else := refused("the request names no server", 0)

judged(id, name) := answer if {
	level := resource.server_level(data.catalog.defaults.sensitivity_level)
	environment := resource.environment(data.catalog.defaults.environment)
	visibility := resource.visibility(data.catalog.defaults.visibility)
	answer := answered(id, name, environment, visibility, level, data.catalog.levels[level])
}

else := refused("the server's sensitivity level is not known", 0)

answered(id, name, environment, visibility, level, rules) := refused(reason, rules.cache_ttl) if {
	reason := denial(id, name, environment, visibility, level, rules)
}

else := {"allow": true, "reason": reason, "cache_ttl": rules.cache_ttl} if reason := grant(environment, level)

else := refused(reason, rules.cache_ttl) if {
	reason := concat("", ["nothing lets the user register servers of ", level, " sensitivity in ", environment])
}

denial(id, name, environment, visibility, level, rules) := reason if reason := principal.refusal(id)

else := "a server's name is 3 to 63 lower-case letters, digits and hyphens and begins with a letter" if {
	not well_named(name)
}

else := "the server's environment is not known" if not data.catalog.environments[environment]

else := "the server's visibility is not known" if not data.catalog.visibilities[visibility]

else := "the server is registered for another owner" if {
	input.server.owner_id != id
	not principal.role_allows("may", "register_for_others")
}

else := "the server is registered for a team that the user is not in" if {
	of_other_team
	not principal.role_allows("may", "register_for_others")
}

else := concat("", ["servers of ", level, " sensitivity cannot be public"]) if {
	visibility == "public"
	not rules.may_be_public
}

else := concat("", ["servers of ", level, " sensitivity need multi-factor authentication"]) if {
	rules.mfa
	not input.user.mfa_verified == true
}

# Without a regular expression: the first one adds 170 KiB to the module.
well_named(name) if {
	is_string(name)
	trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	trim_left(name, "abcdefghijklmnopqrstuvwxyz") != name
	count(name) >= 3
	count(name) <= 63
}

of_other_team if other_team(input.server.managed_by_team)

else if other_team(input.server.team_id)

other_team(team) if not principal.in_team(team)

grant(environment, level) := reason if {
	principal.role_allows_in("register", environment, level)
	reason := concat("", ["a role registers servers of ", level, " sensitivity in ", environment])
}

else := "the user has the permission" if principal.has_permission("server:register", environment)

refused(reason, cache_ttl) := {"allow": false, "reason": reason, "cache_ttl": cache_ttl}
