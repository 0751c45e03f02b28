# METADATA
# title: An HTTP request
# description: Who sends it, as the identity header says and data.directory.users knows them, and where it goes.
package envoy.request

# METADATA
# title: The name in the identity header
user_id := input.attributes.request.http.headers["x-sark-user"]

# METADATA
# title: The user, as the rules of sark.* read input.user
# description: >-
#   Undefined for an unknown name. The header x-sark-mfa is "true" where who authenticated the user saw a second factor.
user := object.union(data.directory.users[user_id], {"id": user_id, "mfa_verified": mfa_verified})

default mfa_verified := false

mfa_verified if input.attributes.request.http.headers["x-sark-mfa"] == "true"

# METADATA
# title: What the MCP endpoint at this path stands for
# description: The server of the rules of sark.mcp. Undefined for a path that is no MCP endpoint.
endpoint := data.catalog.mcp.endpoints[concat("/", input.parsed_path)]

# METADATA
# title: The path may mean another one to who serves it
# description: Dot segments, and what some servers take for them or for a separator.
ambiguous_path if {
	some segment in input.parsed_path
	ambiguous(segment)
}

ambiguous(".")

ambiguous(segment) if startswith(segment, "..")

ambiguous(segment) if contains(segment, "%")

ambiguous(segment) if contains(segment, "\\")
