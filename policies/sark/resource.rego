# METADATA
# title: The resource
# description: >-
#   What is asked about, from input.tool and input.server: its sensitivity, where it runs, who sees it, whose it is.
#   A fallback is what counts where the request is silent; what the request says is never replaced by it.
package sark.resource

import data.sark.principal

# METADATA
# title: The sensitivity level of the tool of this name
# description: >-
#   The higher of what the request and the catalogue say; where both are silent, that of the server.
#   No level of data.catalog.levels where the request says something that is none.
tool_level(name, fallback) := level if {
	stated := data.catalog.sensitivity[input.tool.sensitivity_level]
	level := higher(stated, name)
}

else := "unknown" if input.tool.sensitivity_level != null

else := level if level := data.catalog.sensitivity[data.catalog.tools[name].sensitivity_level]

else := server_level(fallback)

higher(stated, name) := listed if {
	listed := data.catalog.sensitivity[data.catalog.tools[name].sensitivity_level]
	data.catalog.levels[stated].below[listed]
}

else := stated

# METADATA
# title: The sensitivity level of the server
# description: No level of data.catalog.levels where the request says something that is none.
server_level(fallback) := level if level := data.catalog.sensitivity[input.server.sensitivity_level]

else := "unknown" if input.server.sensitivity_level != null

else := fallback

# METADATA
# title: The environment that the server runs in
environment(fallback) := input.server.environment if input.server.environment != null

else := fallback

# METADATA
# title: The visibility of the server
visibility(fallback) := input.server.visibility if input.server.visibility != null

else := fallback

# METADATA
# title: The tool is the user's own
# description: As its owner or as one of its managers.
owns_tool(id) if input.tool.owner == id

else if id in input.tool.managers

# METADATA
# title: The server is the user's own
# description: As its owner or as a member of the team that manages it.
owns_server(id) if input.server.owner_id == id

else if principal.in_team(input.server.managed_by_team)

else if principal.in_team(input.server.team_id)

# METADATA
# title: The user may know that the server of this visibility exists
visible(id, level) if principal.role_allows("sees", level)

else if owns_server(id)

else if owns_tool(id)
