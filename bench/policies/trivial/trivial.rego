# METADATA
# title: The least that a policy can do
# description: One field is read, so that the compiler cannot answer by itself.
package bench.trivial

# METADATA
# entrypoint: true
allow if input.user.id == "alice"
