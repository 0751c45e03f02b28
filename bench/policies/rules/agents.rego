# METADATA
# title: Agent to agent
package bench.rules.agents

import data.bench.rules.common

action := data.catalog.agents.actions[input.action]

source := input.source_agent

target := input.target_agent

default depth := 0

depth := input.context.delegation_depth

deny contains "the action is not known" if not action

deny contains "the request names no source agent" if not common.named(source.id)

deny contains "the request names no target agent" if not common.named(target.id)

deny contains "an agent cannot call itself" if source.id == target.id

deny contains "the source agent is blocked" if data.catalog.agents.blocked[source.id]

deny contains "the target agent is blocked" if data.catalog.agents.blocked[target.id]

deny contains "the source agent is not trusted enough" if not source_trusted

deny contains "the target agent is not trusted enough" if not target_trusted

deny contains "the target agent does not offer the capability" if {
	not input.context.capability in target.capabilities
}

deny contains "the source agent cannot pass on a capability that it lacks" if {
	action.owns_capability
	not input.context.capability in source.capabilities
}

deny contains "the chain of delegation is too long" if not depth <= action.max_depth

deny contains "the source agent's environment may not call the target agent's" if not may_cross

source_trusted if data.catalog.agents.trust[source.trust_level] >= action.source_trust

target_trusted if data.catalog.agents.trust[target.trust_level] >= action.target_trust

may_cross if data.catalog.environments[source.environment].calls[target.environment]

grants contains "nothing speaks against it"

default cache_ttl := 0

cache_ttl := action.cache_ttl

decision := common.answer(deny, grants, cache_ttl)
