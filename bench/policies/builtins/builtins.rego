# METADATA
# title: Built-ins that the host provides
# description: What a call costs is the difference to the rule that makes none.
package bench.builtins

# METADATA
# entrypoint: true
none := [number | some number in input.numbers]

# METADATA
# entrypoint: true
sprintf_each := [sprintf("%d", [number]) | some number in input.numbers]

# METADATA
# entrypoint: true
clock_each := [time.clock([number, "UTC"]) | some number in input.numbers]
