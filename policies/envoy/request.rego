# METADATA
# title: An HTTP request
# description: Who sends it, as was proven or as the identity header says, and where it goes.
package envoy.request

# METADATA
# title: Who sends the request
# description: Where the decision point verifies principals, the identity header is only what anybody can write.
user_id := id if id := input.user.id

else := input.attributes.request.http.headers["x-sark-user"] if not input.principal.method

# METADATA
# title: What is known of that user
# description: The roles that a token proves, else what data.directory.users says.
user := {"roles": roles, "teams": proven_teams} if roles := input.user.roles

else := data.directory.users[user_id]

default proven_teams := []

proven_teams := input.user.teams

# METADATA
# title: Whether who authenticated the user saw a second factor
# description: >-
#   The header is as good as that of the user: beside a token or a certificate it is only what anybody can write. Of a
#   token its claim amr counts, as RFC 8176 has it.
default mfa_verified := false

mfa_verified if {
	not proven_otherwise
	input.attributes.request.http.headers["x-sark-mfa"] == "true"
}

mfa_verified if {
	input.principal.method == "jwt"
	"mfa" in input.principal.claims.amr
}

proven_otherwise if input.principal.method != "header"

# METADATA
# title: Why the user is refused whatever is asked
# description: Undefined for a user in good standing.
refusal := "the request names no user" if not user_id

else := "the user is not known" if not user

else := "the user is suspended" if data.directory.suspended[user_id]

# METADATA
# title: The path may mean another one to who serves it
# description: Dot segments, and what some servers take for them or for a separator.
ambiguous_path if {
	some segment in input.parsed_path
	ambiguous(segment)
}

ambiguous(segment) if segment == "."

else if startswith(segment, "..")

else if contains(segment, "%")

else if contains(segment, "\\")
