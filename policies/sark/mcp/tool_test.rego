package sark.mcp.tool_test

import data.sark.fixtures
import data.sark.mcp.tool

ask_at(document, now) := answer if {
	answer := tool.decision with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
		with time.now_ns as now
}

ask(document) := ask_at(document, fixtures.tuesday("12:00:00"))

base := {
	"user": {"id": "bob", "role": "developer"},
	"action": "tool:invoke",
	"tool": {"name": "list_files", "sensitivity_level": "medium"},
	"server": {"name": "files", "environment": "production", "visibility": "internal"},
}

with_changes(over) := fixtures.changed(base, over, [])

without(paths) := fixtures.changed(base, {}, paths)

high := with_changes({"tool": {"sensitivity_level": "high"}, "user": {"mfa_verified": true}})

critical_owner := with_changes({
	"tool": {"sensitivity_level": "critical", "owner": "bob"},
	"user": {"mfa_verified": true},
})

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allow == false
}

grant(document) := answer.reason if {
	answer := ask(document)
	answer.allow == true
}

# What grants

test_role_grants if {
	ask(base) == {
		"allow": true,
		"reason": "a role grants tools of medium sensitivity in production",
		"cache_ttl": 30,
	}
}

test_one_of_several_roles_grants if {
	document := fixtures.changed(base, {"user": {"roles": ["viewer", "developer"]}}, ["user/role"])
	grant(document) == "a role grants tools of medium sensitivity in production"
}

test_role_and_roles_add_up if grant(with_changes({"user": {"role": "viewer", "roles": ["developer"]}}))

test_team_grants_by_name if {
	document := {"user": {"role": "viewer", "teams": ["support"]}, "tool": {"name": "ticket_search"}}
	grant(with_changes(object.union(document, public))) == "a team of the user was granted the tool"
}

test_team_ids_count_as_teams if {
	document := {"user": {"role": "viewer", "team_ids": ["support"]}, "tool": {"name": "ticket_search"}}
	grant(with_changes(object.union(document, public))) == "a team of the user was granted the tool"
}

public := {"server": {"visibility": "public"}}

viewer := object.union({"user": {"role": "viewer"}}, public)

test_owner_of_tool_may if {
	grant(with_changes(object.union(viewer, {"tool": {"owner": "bob"}}))) == "the user owns or manages the tool"
}

test_manager_of_tool_may if {
	document := with_changes(object.union(viewer, {"tool": {"managers": ["eve", "bob"]}}))
	grant(document) == "the user owns or manages the tool"
}

test_owner_of_server_may if {
	document := with_changes(object.union(viewer, {"server": {"owner_id": "bob"}}))
	grant(document) == "the user owns the server or is in its team"
}

test_team_of_server_may if {
	document := with_changes(object.union(viewer, {"user": {"teams": ["infra"]}, "server": {"managed_by_team": "infra"}}))
	grant(document) == "the user owns the server or is in its team"
}

test_team_id_of_server_counts if {
	document := with_changes(object.union(viewer, {"user": {"team_ids": ["infra"]}, "server": {"team_id": "infra"}}))
	grant(document) == "the user owns the server or is in its team"
}

test_permission_for_the_tool if {
	document := with_changes(object.union(viewer, {"user": {"permissions": ["tool:invoke:list_files"]}}))
	grant(document) == "the user has the permission"
}

test_permission_for_all_tools if {
	grant(with_changes(object.union(viewer, {"user": {"permissions": ["tool:invoke:*"]}}))) == "the user has the permission"
}

test_gateway_names_the_tool_beside if {
	grant(fixtures.changed(base, {"tool_name": "list_files"}, ["tool/name"]))
	grant(fixtures.changed(base, {"tool_name": "echo"}, ["tool"])) == "a role grants tools of low sensitivity in production"
}

# What refuses

test_nothing_grants if {
	refusal(with_changes(viewer)) == "nothing grants tools of medium sensitivity in production"
}

test_role_grants_in_its_environments_only if {
	document := with_changes({"user": {"role": "oncall", "mfa_verified": true}, "tool": {"sensitivity_level": "high"}})
	grant(document)
	elsewhere := object.union(document, {"server": {"environment": "development"}})
	refusal(elsewhere) == "nothing grants tools of high sensitivity in development"
}

test_permission_for_another_tool_grants_nothing if {
	refusal(with_changes(object.union(viewer, {"user": {"permissions": ["tool:invoke:echo", "tool:list:*"]}})))
}

test_other_teams_grant_nothing if {
	refusal(with_changes(object.union(viewer, {"user": {"teams": ["sales"]}, "server": {"managed_by_team": "infra"}})))
}

test_no_user if {
	every document in [without(["user"]), without(["user/id"]), {}] {
		refusal(document) == "the request names no user"
	}
}

test_id_that_is_no_name if {
	every id in ["", 7, null, {}, true] {
		refusal(with_changes({"user": {"id": id}})) == "the user's id is not a name"
	}
}

test_suspended_user if refusal(with_changes({"user": {"id": "mallory"}})) == "the user is suspended"

test_inactive_user if {
	refusal(with_changes({"user": {"status": "left"}})) == "the user is not active"
	grant(with_changes({"user": {"status": "active"}}))
}

test_no_tool if refusal(without(["tool"])) == "the request names no tool"

test_tool_name_that_is_no_name if {
	every name in ["", 7, null, []] {
		refusal(with_changes({"tool": {"name": name}})) == "the tool's name is not a name"
	}
}

test_blocked_tool if refusal(with_changes({"tool": {"name": "run_shell", "owner": "bob"}})) == "the tool is blocked"

test_unknown_level if {
	every level in ["secret", 3, ""] {
		refusal(with_changes({"tool": {"sensitivity_level": level}})) == "the tool's sensitivity level is not known"
	}
	document := fixtures.changed(base, {"server": {"sensitivity_level": "secret"}}, ["tool/sensitivity_level"])
	refusal(document) == "the tool's sensitivity level is not known"
}

test_unknown_environment if {
	document := with_changes({"server": {"environment": "moon"}, "tool": {"owner": "bob"}})
	refusal(document) == "the server's environment is not known"
}

test_inactive_server if {
	refusal(with_changes({"server": {"status": "decommissioned"}})) == "the server is not active"
	grant(with_changes({"server": {"status": "active"}}))
}

test_hidden_server if {
	refusal(with_changes({"server": {"visibility": "private"}})) == "the server is not visible to the user"
}

test_user_without_a_known_role_sees_nothing if {
	refusal(without(["user/role"])) == "the server is not visible to the user"
	refusal(with_changes({"user": {"role": "emperor"}})) == "the server is not visible to the user"
	refusal(with_changes({"user": {"role": ["developer"]}})) == "the server is not visible to the user"
}

test_own_private_server_is_visible if {
	every over in [
		{"server": {"visibility": "private", "owner_id": "bob"}},
		{"server": {"visibility": "private"}, "tool": {"owner": "bob"}},
		{"server": {"visibility": "private", "managed_by_team": "infra"}, "user": {"teams": ["infra"]}},
	] {
		grant(with_changes(over))
	}
}

test_sensitive_tools_need_mfa if {
	every verified in [false, "true", 1, null] {
		document := object.union(high, {"user": {"mfa_verified": verified}})
		refusal(document) == "tools of high sensitivity need multi-factor authentication"
	}
	refusal(json.remove(high, ["user/mfa_verified"])) == "tools of high sensitivity need multi-factor authentication"
}

# What refuses wins over what grants

test_mfa_wins_over_ownership if refusal(json.remove(critical_owner, ["user/mfa_verified"]))

test_hours_win_over_ownership if {
	answer := ask_at(critical_owner, fixtures.tuesday("20:00:00"))
	answer.reason == "tools of critical sensitivity are closed outside of working hours"
}

test_suspension_wins_over_permission if {
	refusal(with_changes({"user": {"id": "mallory", "permissions": ["tool:invoke:*"]}}))
}

# Sensitivity

level_of(document) := answer.cache_ttl if answer := ask(document)

test_older_names_of_levels if {
	level_of(with_changes({"tool": {"sensitivity_level": "public"}})) == 60
	level_of(with_changes({"tool": {"sensitivity_level": "internal"}})) == 30
	level_of(object.union(high, {"tool": {"sensitivity_level": "confidential"}})) == 10
}

test_catalogue_raises_the_level_that_a_request_states if {
	refusal(with_changes({"tool": {"name": "deploy", "sensitivity_level": "low"}}))
}

test_request_raises_the_level_of_the_catalogue if {
	refusal(with_changes({"tool": {"name": "echo", "sensitivity_level": "high"}}))
}

test_level_from_the_catalogue_where_the_request_is_silent if {
	level_of(fixtures.changed(base, {"tool": {"name": "echo"}}, ["tool/sensitivity_level"])) == 60
}

test_level_of_the_server_where_both_are_silent if {
	level_of(fixtures.changed(base, {"server": {"sensitivity_level": "low"}}, ["tool/sensitivity_level"])) == 60
}

test_default_level_where_all_are_silent if {
	refusal(without(["tool/sensitivity_level"])) == "tools of high sensitivity need multi-factor authentication"
}

test_default_environment_and_visibility if {
	grant(without(["server"])) == "a role grants tools of medium sensitivity in production"
}

# Working hours

test_open_within_hours if {
	ask_at(high, fixtures.tuesday("08:00:00")) == {
		"allow": true,
		"reason": "a role grants tools of high sensitivity in production",
		"cache_ttl": 10,
	}
}

test_closed_outside_of_hours if {
	every now in [
		fixtures.tuesday("07:59:00"),
		fixtures.tuesday("18:00:00"),
		fixtures.friday("16:30:00"),
		fixtures.saturday("12:00:00"),
	] {
		ask_at(high, now) == {
			"allow": false,
			"reason": "tools of high sensitivity are closed outside of working hours",
			"cache_ttl": 10,
		}
	}
}

test_answer_ends_with_the_hours if {
	ask_at(high, fixtures.tuesday("17:59:57")).cache_ttl == 3
	ask_at(high, fixtures.friday("16:29:59")).cache_ttl == 1
}

test_refusal_ends_when_the_hours_begin if {
	answer := ask_at(high, fixtures.tuesday("07:59:56"))
	answer.allow == false
	answer.cache_ttl == 4
}

test_some_roles_work_at_any_hour if {
	ask_at(object.union(high, {"user": {"role": "oncall"}}), fixtures.saturday("03:00:00")).allow
}

test_hours_of_no_known_time_zone_are_closed if {
	answer := tool.decision with input as high
		with data.catalog as object.union(fixtures.catalog, {"hours": {"office": {"time_zone": "Mars/Olympus"}}})
		with data.directory as fixtures.directory
		with time.now_ns as fixtures.tuesday("12:00:00")
	answer == {"allow": false, "reason": "the working hours are not known", "cache_ttl": 0}
}

test_other_levels_never_ask_the_clock if ask_at(base, "no time at all").allow

test_timestamp_of_the_request_is_not_read if {
	document := object.union(high, {"context": {"timestamp": "2026-03-03T12:00:00Z"}})
	not ask_at(document, fixtures.saturday("12:00:00")).allow
}

# Parameters

test_paths_of_the_tool if {
	answer := ask(with_changes({"tool": {"name": "lookup"}, "parameters": {"debug": true}}))
	answer.allow
	answer.remove_parameters == ["debug"]
	answer.redact_parameters == ["options/secret"]
}

test_paths_of_the_level_and_the_tool_add_up if {
	answer := ask(object.union(critical_owner, {"tool": {"name": "lookup"}}))
	answer.allow
	answer.remove_parameters == ["debug"]
	answer.redact_parameters == ["password", "options/secret"]
}

test_paths_of_the_level_alone if {
	answer := ask(critical_owner)
	answer.remove_parameters == []
	answer.redact_parameters == ["password"]
}

test_refusal_says_nothing_of_parameters if {
	answer := ask(with_changes(object.union(viewer, {"tool": {"name": "lookup"}})))
	not answer.allow
	not answer.remove_parameters
}

# Lifetime

test_answers_live_shorter_the_more_sensitive_the_tool if {
	lifetimes := [level_of(document) |
		some document in [
			with_changes({"tool": {"sensitivity_level": "low"}}),
			base,
			high,
			critical_owner,
		]
	]
	lifetimes == [60, 30, 10, 0]
}
