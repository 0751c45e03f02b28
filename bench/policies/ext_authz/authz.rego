# METADATA
# title: A lookup of roles
# description: What the load runs ask through ext_authz, of this engine and of others.
package envoy.authz

roles := {"alice": ["reader"], "bob": ["writer"]}

grants := {"reader": ["GET"], "writer": ["GET", "POST"]}

default allow := false

# METADATA
# entrypoint: true
allow if {
	some role in roles[input.attributes.request.http.headers["x-user"]]
	input.attributes.request.http.method in grants[role]
	input.parsed_path[0] == "api"
}
