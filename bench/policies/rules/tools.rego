# METADATA
# title: Tool invocation
package bench.rules.tools

import data.bench.rules.common

default tool := ""

tool := input.tool.name if input.tool.name

else := input.tool_name

stated := data.catalog.sensitivity[input.tool.sensitivity_level]

listed := data.catalog.sensitivity[data.catalog.tools[tool].sensitivity_level]

level := listed if data.catalog.levels[stated].below[listed]

else := stated if stated

else := listed if listed

else := common.server_level

rules := data.catalog.levels[level]

deny contains reason if some reason in common.deny

deny contains "the request names no tool" if not common.named(tool)

deny contains "the tool's sensitivity level is not known" if {
	input.tool.sensitivity_level
	not stated
}

deny contains "the tool is blocked" if data.catalog.tools[tool].blocked

deny contains "the server is not active" if input.server.status != "active"

deny contains "the server's environment is not known" if not data.catalog.environments[common.environment]

deny contains "the server is not visible to the user" if not common.visible

deny contains concat("", ["tools of ", level, " sensitivity need multi-factor authentication"]) if {
	rules.mfa
	not input.user.mfa_verified
}

grants contains concat("", ["a role grants tools of ", level, " sensitivity in ", common.environment]) if {
	common.may_invoke(level)
}

grants contains "a team of the user was granted the tool" if common.team_grants(tool)

grants contains "the user owns or manages the tool" if common.owns_tool

grants contains "the user owns the server or is in its team" if common.owns_server

grants contains "the user has the permission" if common.permitted("tool:invoke", tool)

default cache_ttl := 0

cache_ttl := rules.cache_ttl

default filters := {}

filters := {"remove_parameters": parameters.remove, "redact_parameters": parameters.redact} if {
	parameters := data.catalog.tools[tool].parameters
}

decision := object.union(common.answer(deny, grants, cache_ttl), filters)
