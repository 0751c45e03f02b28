package sark.mcp_test

import data.sark.fixtures
import data.sark.mcp

reason(document) := answer.reason if {
	answer := mcp.decision with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
		with time.now_ns as fixtures.tuesday("12:00:00")
}

bob := {"id": "bob", "role": "developer"}

test_each_action_reaches_its_package if {
	reason({"user": bob, "action": "tool:invoke"}) == "the request names no tool"
	reason({"user": bob, "action": "tool:list"}) == "the user may list"
	reason({"user": bob, "action": "server:list"}) == "the user may list"
	reason({"user": bob, "action": "server:register"}) == "the request names no server"
	startswith(reason({"user": bob, "action": "agent:query"}), "the request names no capability")
}

test_other_actions_are_refused if {
	every document in [{}, {"action": "tool:delete"}, {"action": 7}, {"action": null, "user": bob}] {
		reason(document) == "the action is not known"
	}
}
