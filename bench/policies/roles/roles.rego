# METADATA
# title: What roles may do at a sensitivity level
# description: Reads no id of a user or tool, so that everyone with the same roles shares an answer.
package bench.roles

default decision := {"allow": false, "reason": "no role grants this"}

# METADATA
# entrypoint: true
decision := {"allow": true, "reason": "a role grants this"} if {
	some role in input.user.roles
	data.grants[role][input.action][input.tool.sensitivity_level]
}
