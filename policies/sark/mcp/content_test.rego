package sark.mcp.content_test

import data.sark.fixtures
import data.sark.mcp

ask(document) := answer if {
	answer := mcp.decision with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
}

bob := {"id": "bob", "roles": ["developer"]}

asked(action, uri) := {"action": action, "user": bob, "resource": {"uri": uri}}

prompted(action, name) := {"action": action, "user": bob, "prompt": {"name": name}}

grant(document) := answer.reason if {
	answer := ask(document)
	answer.allow == true
}

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allow == false
}

test_resource_by_scheme if {
	every action in ["resource:read", "resource:list"] {
		every uri in ["docs://guide", "DOCS:guide"] {
			ask(asked(action, uri)) == {"allow": true, "reason": "a role shows resources of low sensitivity", "cache_ttl": 60}
		}
		refusal(asked(action, "vault://key")) == "no role shows resources of critical sensitivity"
	}
}

test_prompt_by_name if {
	every action in ["prompt:get", "prompt:list"] {
		grant(prompted(action, "summarize")) == "a role shows prompts of low sensitivity"
		refusal(prompted(action, "secret_plan")) == "no role shows prompts of critical sensitivity"
	}
}

test_second_factor_is_for_reading_not_for_seeing if {
	refusal(asked("resource:read", "file:///etc/motd")) == "resources of high sensitivity need multi-factor authentication"
	grant(asked("resource:list", "file:///etc/motd")) == "a role shows resources of high sensitivity"
	verified := object.union(asked("resource:read", "file:///etc/motd"), {"user": {"mfa_verified": true}})
	grant(verified) == "a role shows resources of high sensitivity"
}

test_what_the_catalogue_lacks_counts_as_its_server if {
	document := asked("resource:list", "wiki://start")
	low := object.union(document, {"server": {"sensitivity_level": "low"}})
	grant(low) == "a role shows resources of low sensitivity"
	odd := object.union(document, {"server": {"sensitivity_level": "odd"}})
	refusal(odd) == "the sensitivity level is not known"
	level := data.sark.fixtures.catalog.defaults.sensitivity_level
	grant(document) == concat("", ["a role shows resources of ", level, " sensitivity"])
}

test_what_names_nothing if {
	reason := "the request names neither a resource nor a prompt"
	every uri in ["", "guide", 7, null] {
		refusal(asked("resource:read", uri)) == reason
	}
	every name in ["", 7, null] {
		refusal(prompted("prompt:get", name)) == reason
	}
	refusal({"action": "resource:read", "user": bob, "prompt": {"name": "summarize"}}) == reason
	refusal({"action": "prompt:get", "user": bob, "resource": {"uri": "docs://guide"}}) == reason
}

test_other_actions_on_resources if {
	refusal(asked("resource:write", "docs://guide")) == "the action is not known"
}

test_no_user if {
	refusal(json.remove(asked("resource:read", "docs://guide"), ["user"])) == "the request names no user"
}

test_user_and_server_that_refuse if {
	document := asked("resource:read", "docs://guide")
	refusal(object.union(document, {"user": {"id": "mallory"}})) == "the user is suspended"
	refusal(object.union(document, {"server": {"status": "retired"}})) == "the server is not active"
	refusal(object.union(document, {"server": {"visibility": "private"}})) == "the server is not visible to the user"
	grant(object.union(document, {"server": {"visibility": "private", "owner_id": "bob"}})) == "a role shows resources of low sensitivity"
}
