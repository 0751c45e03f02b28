package sark.a2a_test

import data.sark.a2a
import data.sark.fixtures

ask(document) := answer if {
	answer := a2a.decision with input as document with data.catalog as fixtures.catalog
}

base := {
	"action": "agent:delegate",
	"source_agent": {
		"id": "planner",
		"trust_level": "trusted",
		"environment": "production",
		"capabilities": ["search", "summarize"],
	},
	"target_agent": {
		"id": "researcher",
		"trust_level": "trusted",
		"environment": "production",
		"capabilities": ["search"],
	},
	"context": {"capability": "search", "delegation_depth": 1},
}

with_changes(over) := object.union(base, over)

without(paths) := json.remove(base, paths)

# All that speaks against it, where anything does.
against(document) := {reason | some reason in answer.deny} if {
	answer := ask(document)
	answer.allow == false
	answer.reason == concat("; ", answer.deny)
}

test_allowed if {
	ask(base) == {"allow": true, "reason": "nothing speaks against it", "cache_ttl": 5, "deny": []}
}

test_unknown_action if {
	every document in [with_changes({"action": "agent:destroy"}), without(["action"])] {
		"the action is not known" in against(document)
		ask(document).cache_ttl == 0
	}
}

test_agents_are_named if {
	every id in ["", 7, null] {
		"the request names no source agent" in against(with_changes({"source_agent": {"id": id}}))
		"the request names no target agent" in against(with_changes({"target_agent": {"id": id}}))
	}
	"the request names no source agent" in against(without(["source_agent"]))
	"the request names no target agent" in against(without(["target_agent/id"]))
}

test_an_agent_and_itself if {
	against(with_changes({"target_agent": {"id": "planner"}})) == {"an agent cannot call itself"}
}

test_blocked_agents if {
	against(with_changes({"source_agent": {"id": "rogue"}})) == {"the source agent is blocked"}
	against(with_changes({"target_agent": {"id": "rogue"}})) == {"the target agent is blocked"}
}

test_trust_of_the_source if {
	every level in ["limited", "untrusted", "unheard of", null, 2] {
		document := with_changes({"source_agent": {"trust_level": level}})
		against(document) == {"the source agent is not trusted enough"}
	}
	against(without(["source_agent/trust_level"])) == {"the source agent is not trusted enough"}
}

test_trust_of_the_target if {
	against(with_changes({"target_agent": {"trust_level": "limited"}})) == {"the target agent is not trusted enough"}
	against(without(["target_agent/trust_level"])) == {"the target agent is not trusted enough"}
}

test_each_action_has_its_own_trust if {
	ask(with_changes({
		"action": "agent:query",
		"source_agent": {"trust_level": "limited"},
		"target_agent": {"trust_level": "limited"},
	})).allow
}

test_no_capability if {
	"the request names no capability" in against(without(["context/capability"]))
	"the target agent does not offer the capability" in against(without(["context/capability"]))
}

test_capability_that_the_target_does_not_offer if {
	against(with_changes({"context": {"capability": "summarize"}})) == {"the target agent does not offer the capability"}
	against(without(["target_agent/capabilities"])) == {"the target agent does not offer the capability"}
}

test_capability_that_the_source_cannot_pass_on if {
	document := with_changes({"source_agent": {"capabilities": ["summarize"]}})
	against(document) == {"the source agent cannot pass on a capability that it lacks"}
	against(without(["source_agent/capabilities"])) == {"the source agent cannot pass on a capability that it lacks"}
	ask(object.union(document, {"action": "agent:query"})).allow
}

test_depth if {
	every depth in [0, 3] {
		ask(with_changes({"context": {"delegation_depth": depth}})).allow
	}
	every depth in [4, -1, "1", null] {
		document := with_changes({"context": {"delegation_depth": depth}})
		against(document) == {"the chain of delegation is too long"}
	}
	ask(without(["context/delegation_depth"])).allow
}

test_environments if {
	into_production := with_changes({"source_agent": {"environment": "development"}})
	ask(into_production).allow
	out_of_production := with_changes({"target_agent": {"environment": "development"}})
	against(out_of_production) == {"the source agent's environment may not call the target agent's"}
	against(without(["source_agent/environment"])) == {"the source agent's environment may not call the target agent's"}
	against(without(["target_agent/environment"])) == {"the source agent's environment may not call the target agent's"}
}

test_all_that_speaks_against_it_is_told if {
	document := with_changes({"source_agent": {"id": "rogue", "trust_level": "limited"}})
	ask(document).reason == "the source agent is blocked; the source agent is not trusted enough"
}
