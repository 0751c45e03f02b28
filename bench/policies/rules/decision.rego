# METADATA
# title: The decision on any action
# description: >-
#   The kind and number of rules of the default set, over its data, in the form that most policies have: sets of what
#   denies, several ways to be allowed, and one rule that puts them together. No built-in of the host is used.
package bench.rules

import data.bench.rules.agents
import data.bench.rules.listing
import data.bench.rules.registration
import data.bench.rules.tools

# METADATA
# entrypoint: true
decision := tools.decision if input.action == "tool:invoke"

else := listing.decision if input.action in {"server:list", "tool:list"}

else := registration.decision if input.action == "server:register"

else := agents.decision if startswith(input.action, "agent:")

else := {"allow": false, "reason": "the action is not known", "cache_ttl": 60}
