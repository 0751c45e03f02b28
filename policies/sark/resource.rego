# METADATA
# title: The resource
# description: >-
#   What is asked about, from input.tool and input.server: its sensitivity, where it runs, who sees it, whose it is.
package sark.resource

import data.sark.principal

# METADATA
# title: The tool's name
# description: Undefined where the request names no tool. A gateway says tool_name.
tool_name := input.tool.name if {
	is_string(input.tool.name)
	input.tool.name != ""
}

else := input.tool_name if {
	is_string(input.tool_name)
	input.tool_name != ""
}

# METADATA
# title: The catalogue's entry of the tool
catalogued := data.catalog.tools[tool_name]

# METADATA
# title: The tool's sensitivity level
# description: >-
#   The higher of what the request and the catalogue say; where both are silent the server's, else the default.
#   Undefined where the request says something that is no level.
tool_level := stated_level if {
	stated_level
	not catalogue_outranks
}

else := listed_level if {
	listed_level
	not misstated_tool_level
}

else := server_level if not misstated_tool_level

stated_level := data.catalog.sensitivity[input.tool.sensitivity_level]

listed_level := data.catalog.sensitivity[catalogued.sensitivity_level]

catalogue_outranks if data.catalog.levels[listed_level].rank > data.catalog.levels[stated_level].rank

misstated_tool_level if {
	input.tool.sensitivity_level != null
	not stated_level
}

# METADATA
# title: The server's sensitivity level
# description: The default where the request is silent; undefined where it says something that is no level.
server_level := stated_server_level if stated_server_level

else := data.catalog.defaults.sensitivity_level if not states_server_level

stated_server_level := data.catalog.sensitivity[input.server.sensitivity_level]

states_server_level if input.server.sensitivity_level != null

# METADATA
# title: The server's environment
# description: The default where the request is silent; undefined where it says something that is no environment.
environment := input.server.environment if data.catalog.environments[input.server.environment]

else := data.catalog.defaults.environment if not has_environment

has_environment if input.server.environment != null

# METADATA
# title: The server's visibility
visibility := input.server.visibility if input.server.visibility != null

else := data.catalog.defaults.visibility

# METADATA
# title: The tool is the user's own
# description: As its owner or as one of its managers.
owns_tool if input.tool.owner == principal.id

else if principal.id in input.tool.managers

# METADATA
# title: The server is the user's own
# description: As its owner or as a member of the team that manages it.
owns_server if input.server.owner_id == principal.id

else if principal.in_team(input.server.managed_by_team)

else if principal.in_team(input.server.team_id)

# METADATA
# title: The user may know that the server exists
visible if principal.role_grants("list", visibility, "low")

else if owns_server

else if owns_tool
