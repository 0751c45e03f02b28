package neighbour

import rego.v1

# METADATA
# title: A lookup, as most policies are
# entrypoint: true
quick if input.user in {"alice", "bob"}

# METADATA
# title: Looks at every pair of its input, which takes milliseconds
# entrypoint: true
slow if {
	some one in input.words
	some other in input.words
	one != other
	count(one) + count(other) == 99
}

# METADATA
# title: Counts what it is given
# entrypoint: true
whole if count(input.given) > 0
