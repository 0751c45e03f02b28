# METADATA
# title: Working hours
# description: >-
#   Whether a schedule of data.catalog.hours is open, by the clock of the decision point; never by the request's.
#   Each call of the clock leaves the WebAssembly module, so only what needs the hours should ask for them.
package sark.hours

# METADATA
# title: Whether the schedule is open, and for how many seconds that stays so
# description: >-
#   A window is from-to in hours of its local day, half open. Undefined where the schedule names no known time zone.
state(schedule) := _state(_seconds(moment), window) if {
	moment := [time.now_ns(), schedule.time_zone]
	window := object.get(schedule.weekdays, time.weekday(moment), {"from": 24, "to": 24})
}

_seconds(moment) := (((clock[0] * 3600) + (clock[1] * 60)) + clock[2]) + ((moment[0] % 1000000000) / 1000000000) if {
	clock := time.clock(moment)
}

_state(seconds, window) := {"open": false, "for": (window.from * 3600) - seconds} if seconds < window.from * 3600

else := {"open": true, "for": (window.to * 3600) - seconds} if seconds < window.to * 3600

else := {"open": false, "for": 86400 - seconds}
