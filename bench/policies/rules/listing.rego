# METADATA
# title: Listing of tools and servers
package bench.rules.listing

import data.bench.rules.common
import data.bench.rules.tools

names_server if input.server.name

names_server if input.server.id

names_something if tools.tool != ""

names_something if names_server

deny contains reason if some reason in common.deny

deny contains "the server is not visible to the user" if not common.visible

grants contains "a role shows tools of this sensitivity" if {
	input.action == "tool:list"
	common.may_list(tools.level)
}

grants contains "a team of the user was granted the tool" if {
	input.action == "tool:list"
	common.team_grants(tools.tool)
}

grants contains "the user has the permission" if {
	input.action == "tool:list"
	common.permitted("tool:invoke", tools.tool)
}

grants contains "a role shows servers of this sensitivity" if {
	input.action == "server:list"
	names_server
	common.may_list(common.server_level)
}

grants contains "the user owns or manages the tool" if common.owns_tool

grants contains "the user owns the server or is in its team" if common.owns_server

grants contains "the user may list" if not names_something

decision := common.answer(deny, grants, data.catalog.defaults.list_cache_ttl)
