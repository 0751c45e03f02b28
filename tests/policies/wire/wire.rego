package wire

# What the caller wants to see happen: a native one says it in `case`, Envoy with the path.
which := input.case if input.case

else := input.parsed_path[0] if input.parsed_path

# METADATA
# entrypoint: true
decide := true if which == "allow"

else := false if which == "deny"

else := "yes" if which == "text"

else := 42 if which == "number"

else := {"a"} if which == "set"

else := {"allow": true, "reason": "an object", "cache_ttl": 5, "more": [1, null]} if which == "object"

else := {"allowed": true, "audit_reason": "as in opa-envoy-plugin"} if which == "allowed"

else := {"reason": "no word on allow"} if which == "silent"

else := {"allow": "yes"} if which == "unusable"

else := {"allow": true, "remove_parameters": ["debug", "auth/token"], "redact_parameters": ["card"]} if which == "paths"

else := {"allow": true, "filtered_parameters": {"only": "this"}} if which == "rewritten"

else := {"allow": true, "cache_ttl": 0} if which == "uncached"

else := conflict if which == "conflict"

else := aborted if which == "abort"

else := endless if which == "timeout"

else := hungry if which == "memory"

else := failing if which == "builtin"

conflict if which == "conflict"

conflict := false if count(which) == 8

aborted := {key: value | some value in [1, 2]; key := which}

endless if {
	all := numbers.range(1, 2000)
	some x in all
	some y in all
	some z in all
	x == input.salt
	y > x
	z > y
	z < x
}

hungry := count(numbers.range(1, 100000000))

failing if time.parse_rfc3339_ns(which) > 0

# METADATA
# entrypoint: true
clock := {"allow": true, "now": time.now_ns()}

# METADATA
# entrypoint: true
other := true if input.salt > 0

else := endless if input.salt

# METADATA
# entrypoint: true
listed := {"allow": true, "reason": "owned"} if input.tool.owner == input.user.id

else := {"allow": true, "reason": "owned"} if input.server.owner_id == input.user.id

else := {"allow": true, "reason": "owned"} if input.resource.owner == input.user.id

else := {"allow": true, "reason": "owned"} if input.prompt.owner == input.user.id

else := {"allow": false, "reason": "owned by another"}
