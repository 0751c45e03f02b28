package sark.mcp.registration_test

import data.sark.fixtures
import data.sark.mcp.registration

ask(document) := answer if {
	answer := registration.decision with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
}

base := {
	"user": {"id": "bob", "role": "developer", "teams": ["payments"]},
	"action": "server:register",
	"server": {
		"name": "billing-tools",
		"environment": "development",
		"visibility": "internal",
		"sensitivity_level": "medium",
		"owner_id": "bob",
		"managed_by_team": "payments",
	},
}

with_changes(over) := object.union(base, over)

grant(document) := answer.reason if {
	answer := ask(document)
	answer.allow == true
}

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allow == false
}

test_role_registers if {
	ask(base) == {
		"allow": true,
		"reason": "a role registers servers of medium sensitivity in development",
		"cache_ttl": 30,
	}
}

test_permission_registers if {
	document := with_changes({"user": {"role": "viewer", "permissions": ["server:register:development"]}})
	grant(document) == "the user has the permission"
}

test_nothing_grants if {
	refusal(with_changes({"server": {"environment": "production"}})) == concat("", [
		"nothing lets the user register servers of medium sensitivity in production",
	])
}

test_no_user if refusal(json.remove(base, ["user"])) == "the request names no user"

test_suspended_user if refusal(with_changes({"user": {"id": "mallory"}})) == "the user is suspended"

test_no_server if {
	refusal(json.remove(base, ["server"])) == "the request names no server"
	refusal(json.remove(base, ["server/name"])) == "the request names no server"
}

test_names if {
	every name in ["abc", "a-1", "files2"] {
		grant(with_changes({"server": {"name": name}}))
	}
	long := concat("", [letter | some i in numbers.range(1, 64); letter := substring("a", i - i, 1)])
	grant(with_changes({"server": {"name": substring(long, 0, 63)}}))
	every name in ["", "ab", "1abc", "-abc", "Abc", "a_b_c", "a b c", "a/../b", "été", 7, null, long] {
		refusal(with_changes({"server": {"name": name}})) == badly_named
	}
}

badly_named := "a server's name is 3 to 63 lower-case letters, digits and hyphens and begins with a letter"

test_unknown_level if {
	refusal(with_changes({"server": {"sensitivity_level": "secret"}})) == "the server's sensitivity level is not known"
}

test_unknown_environment if {
	refusal(with_changes({"server": {"environment": "moon"}})) == "the server's environment is not known"
}

test_unknown_visibility if {
	refusal(with_changes({"server": {"visibility": "secret"}})) == "the server's visibility is not known"
	refusal(with_changes({"server": {"visibility": 7}})) == "the server's visibility is not known"
}

test_another_owner if {
	refusal(with_changes({"server": {"owner_id": "eve"}})) == "the server is registered for another owner"
	refusal(with_changes({"server": {"owner_id": null}})) == "the server is registered for another owner"
}

test_another_team if {
	reason := "the server is registered for a team that the user is not in"
	refusal(with_changes({"server": {"managed_by_team": "infra"}})) == reason
	refusal(with_changes({"server": {"team_id": "infra"}})) == reason
	refusal(json.remove(base, ["user/teams"])) == reason
}

test_registrars_register_for_others if {
	grant(with_changes({
		"user": {"roles": ["registrar"]},
		"server": {"owner_id": "eve", "managed_by_team": "infra", "sensitivity_level": "low"},
	}))
}

test_owner_and_team_may_be_left_out if grant(json.remove(base, ["server/owner_id", "server/managed_by_team"]))

test_sensitive_servers_cannot_be_public if {
	over := {"server": {"visibility": "public", "sensitivity_level": "high"}, "user": {"mfa_verified": true}}
	refusal(with_changes(over)) == "servers of high sensitivity cannot be public"
	grant(with_changes({"server": {"visibility": "public"}}))
}

test_sensitive_servers_need_mfa if {
	over := {"server": {"sensitivity_level": "high"}}
	refusal(with_changes(over)) == "servers of high sensitivity need multi-factor authentication"
	grant(with_changes(object.union(over, {"user": {"mfa_verified": true}})))
}

test_defaults_are_the_strict_ones if {
	document := fixtures.changed(base, {"user": {"mfa_verified": true}}, [
		"server/environment",
		"server/visibility",
		"server/sensitivity_level",
	])
	refusal(document) == "nothing lets the user register servers of high sensitivity in production"
}
