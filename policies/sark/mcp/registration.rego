# METADATA
# title: Server registration
# description: May this user register this server, for this owner and team, in this environment?
package sark.mcp.registration

import data.sark.principal
import data.sark.resource

# METADATA
# title: May this user register this server?
# description: allow, reason, cache_ttl.
# entrypoint: true
decision := {"allow": false, "reason": denial, "cache_ttl": cache_ttl} if denial

else := {"allow": true, "reason": grant, "cache_ttl": cache_ttl} if grant

else := {"allow": false, "reason": reason, "cache_ttl": cache_ttl} if {
	reason := concat("", ["nothing lets the user register servers of ", level, " sensitivity in ", resource.environment])
}

level := resource.server_level

sensitivity := data.catalog.levels[level]

cache_ttl := sensitivity.cache_ttl if sensitivity

else := 0

denial := principal.refusal if principal.refusal

else := "the request names no server" if not named

else := "a server's name is 3 to 63 lower-case letters, digits and hyphens and begins with a letter" if not well_named

else := "the server's sensitivity level is not known" if not level

else := "the server's environment is not known" if not resource.environment

else := "the server's visibility is not known" if not visibility_known

else := "the server is registered for another owner" if {
	input.server.owner_id != principal.id
	not principal.role_has("register_for_others")
}

else := "the server is registered for a team that the user is not in" if for_other_team

else := concat("", ["servers of ", level, " sensitivity need multi-factor authentication"]) if {
	sensitivity.mfa
	not input.user.mfa_verified == true
}

else := concat("", ["servers of ", level, " sensitivity cannot be public"]) if {
	resource.visibility == "public"
	not sensitivity.may_be_public
}

visibility_known if data.catalog.visibility[resource.visibility]

named if is_string(input.server.name)

well_named if regex.match(`^[a-z][a-z0-9-]{2,62}$`, input.server.name)

for_other_team if {
	some team in [input.server.managed_by_team]
	not principal.in_team(team)
	not principal.role_has("register_for_others")
}

else if {
	some team in [input.server.team_id]
	not principal.in_team(team)
	not principal.role_has("register_for_others")
}

grant := concat("", ["a role registers servers of ", level, " sensitivity in ", resource.environment]) if {
	principal.role_grants("register", resource.environment, level)
}

else := "the user has the permission" if principal.has_permission("server:register", resource.environment)
