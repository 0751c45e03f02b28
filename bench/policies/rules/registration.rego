# METADATA
# title: Server registration
package bench.rules.registration

import data.bench.rules.common

rules := data.catalog.levels[common.server_level]

well_named if {
	is_string(input.server.name)
	count(input.server.name) >= 3
	count(input.server.name) <= 63
	trim(input.server.name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

of_other_team if not input.server.managed_by_team in common.teams

of_other_team if not input.server.team_id in common.teams

deny contains reason if some reason in common.deny

deny contains "the server's name is not a name" if not well_named

deny contains "the server's environment is not known" if not data.catalog.environments[common.environment]

deny contains "the server's visibility is not known" if not data.catalog.visibilities[common.visibility]

deny contains "the server is registered for another owner" if {
	input.server.owner_id != input.user.id
	not common.may_register_for_others
}

deny contains "the server is registered for a team that the user is not in" if {
	of_other_team
	not common.may_register_for_others
}

deny contains "servers of this sensitivity cannot be public" if {
	common.visibility == "public"
	not rules.may_be_public
}

deny contains "servers of this sensitivity need multi-factor authentication" if {
	rules.mfa
	not input.user.mfa_verified
}

grants contains "a role registers servers of this sensitivity" if common.may_register(common.server_level)

grants contains "the user has the permission" if common.permitted("server:register", common.environment)

decision := common.answer(deny, grants, rules.cache_ttl)
