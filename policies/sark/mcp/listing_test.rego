package sark.mcp.listing_test

import data.sark.fixtures
import data.sark.mcp.listing

ask(document) := answer if {
	answer := listing.decision with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
}

tool := {
	"user": {"id": "bob", "role": "developer"},
	"action": "tool:list",
	"tool": {"name": "list_files", "sensitivity_level": "medium"},
	"server": {"name": "files", "visibility": "internal"},
}

server := {
	"user": {"id": "bob", "role": "developer"},
	"action": "server:list",
	"server": {"name": "files", "visibility": "internal", "sensitivity_level": "medium"},
}

bare := {"user": {"id": "bob", "role": "developer"}, "action": "tool:list"}

grant(document) := answer.reason if {
	answer := ask(document)
	answer.allow == true
}

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allow == false
}

# A viewer may list low tools of public servers.
narrow(over) := object.union_n([tool, {"user": {"role": "viewer"}, "server": {"visibility": "public"}}, over])

test_role_shows_tools if {
	ask(tool) == {"allow": true, "reason": "a role shows tools of medium sensitivity", "cache_ttl": 40}
}

test_gateway_names_the_tool_beside if {
	document := fixtures.changed(tool, {"tool_name": "list_files"}, ["tool/name"])
	grant(document) == "a role shows tools of medium sensitivity"
}

test_role_shows_servers if grant(server) == "a role shows servers of medium sensitivity"

test_team_was_granted_the_tool if {
	document := narrow({"user": {"teams": ["support"]}, "tool": {"name": "ticket_search"}})
	grant(document) == "a team of the user was granted the tool"
}

test_own_tool if {
	grant(narrow({"tool": {"owner": "bob"}})) == "the user owns or manages the tool"
	grant(narrow({"tool": {"managers": ["bob"]}})) == "the user owns or manages the tool"
}

test_permission_shows_its_tool if {
	grant(narrow({"user": {"permissions": ["tool:invoke:list_files"]}})) == "the user has the permission"
}

test_own_server if {
	document := object.union(server, {"server": {"visibility": "private", "owner_id": "bob"}})
	grant(object.union(document, {"server": {"sensitivity_level": "critical"}})) == owns
	grant(narrow({"server": {"owner_id": "bob"}})) == owns
}

owns := "the user owns the server or is in its team"

test_server_by_id_alone if {
	grant(fixtures.changed(server, {"server": {"id": "s1"}}, ["server/name"])) == "a role shows servers of medium sensitivity"
}

test_listing_of_nothing_in_particular if {
	grant(bare) == "the user may list"
	grant(object.union(bare, {"action": "server:list"})) == "the user may list"
}

test_tool_without_a_name_is_not_nothing if {
	refusal(object.union(bare, {"tool": {"id": "t1"}})) == "nothing lets the user see it"
	refusal(object.union(bare, {"tool_name": 7, "user": {"role": "oncall"}, "tool": {"sensitivity_level": "low"}}))
}

test_nothing_shows_the_tool if {
	refusal(narrow({})) == "nothing lets the user see it"
}

test_nothing_shows_the_server if {
	refusal(object.union(server, {"server": {"sensitivity_level": "critical"}})) == "nothing lets the user see it"
}

test_hidden_server if {
	refusal(object.union(tool, {"server": {"visibility": "private"}})) == "the server is not visible to the user"
	refusal(object.union(server, {"server": {"visibility": "private"}})) == "the server is not visible to the user"
}

test_unknown_levels_are_shown_to_nobody if {
	refusal(object.union(tool, {"tool": {"sensitivity_level": "secret"}})) == "nothing lets the user see it"
	refusal(object.union(server, {"server": {"sensitivity_level": "secret"}})) == "nothing lets the user see it"
}

test_other_action if {
	refusal(object.union(tool, {"action": "tool:invoke"})) == "the request lists neither tools nor servers"
	refusal(json.remove(tool, ["action"])) == "the request names no action"
}

test_no_user if refusal(json.remove(tool, ["user"])) == "the request names no user"

test_suspended_user if refusal(object.union(tool, {"user": {"id": "mallory"}})) == "the user is suspended"

test_inactive_user if refusal(object.union(tool, {"user": {"status": "left"}})) == "the user is not active"
