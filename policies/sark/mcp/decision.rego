# METADATA
# title: The decision on any action
# description: Sends input.action to the package that knows it.
package sark.mcp

import data.sark.a2a
import data.sark.mcp.content
import data.sark.mcp.listing
import data.sark.mcp.registration
import data.sark.mcp.tool

# METADATA
# title: May this be done?
# description: >-
#   tool:invoke, tool:list, server:list, server:register, resource:*, prompt:* and agent:*; any other action is
#   refused. The result is that of the package asked.
# entrypoint: true
decision := tool.decision if input.action == "tool:invoke"

else := listing.decision if input.action in {"server:list", "tool:list"}

else := registration.decision if input.action == "server:register"

else := content.decision if input.action in {"prompt:get", "prompt:list", "resource:list", "resource:read"}

else := a2a.decision if startswith(input.action, "agent:")

else := {"allow": false, "reason": "the action is not known", "cache_ttl": 60}
