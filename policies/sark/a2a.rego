# METADATA
# title: Agent to agent
# description: >-
#   May this agent ask that of the other one? Every reason that speaks against it is collected, and none may remain:
#   who debugs a chain of agents wants them all at once.
package sark.a2a

# METADATA
# title: May the source agent do this to the target agent?
# description: allow, reason, cache_ttl, and deny, a list of all that speaks against it.
decision := {"allow": true, "reason": "nothing speaks against it", "cache_ttl": action.cache_ttl, "deny": []} if {
	count(deny) == 0
}

else := refused(sort(deny), action.cache_ttl) if action

else := refused(sort(deny), 0)

# Sorted, because compiled to WebAssembly a set has no order.
refused(reasons, cache_ttl) := {
	"allow": false,
	"reason": concat("; ", reasons),
	"cache_ttl": cache_ttl,
	"deny": reasons,
}

action := data.catalog.agents.actions[input.action]

deny contains "the action is not known" if not action

deny contains "the request names no source agent" if not source

deny contains "the request names no target agent" if not target

deny contains "an agent cannot call itself" if source == target

deny contains "the source agent is blocked" if data.catalog.agents.blocked[source]

deny contains "the target agent is blocked" if data.catalog.agents.blocked[target]

deny contains "the source agent is not trusted enough" if not source_trusted

deny contains "the target agent is not trusted enough" if not target_trusted

deny contains "the request names no capability" if not capability

deny contains "the target agent does not offer the capability" if not target_offers

deny contains "the source agent cannot pass on a capability that it lacks" if {
	action.owns_capability
	not source_has
}

deny contains "the chain of delegation is too long" if not short_enough

deny contains "the source agent's environment may not call the target agent's" if not may_cross

source := named(input.source_agent.id)

target := named(input.target_agent.id)

capability := named(input.context.capability)

named(value) := value if {
	is_string(value)
	value != ""
}

target_offers if capability in input.target_agent.capabilities

source_has if capability in input.source_agent.capabilities

source_trusted if data.catalog.agents.trust[input.source_agent.trust_level] >= action.source_trust

target_trusted if data.catalog.agents.trust[input.target_agent.trust_level] >= action.target_trust

# The first call of a chain may leave its depth out.
default depth := 0

depth := input.context.delegation_depth

short_enough if {
	is_number(depth)
	depth >= 0
	depth <= action.max_depth
}

may_cross if {
	data.catalog.environments[input.source_agent.environment].calls[input.target_agent.environment]
}
