# METADATA
# title: What the tests of these packages share
# description: Data of their own, so that the shipped data can be replaced without a change to a test.
package sark.fixtures

directory := {
	"roles": {
		"developer": {
			"sees": {"public": true, "internal": true},
			"list": {"low": true, "medium": true, "high": true},
			"invoke": {
				"development": {"low": true, "medium": true, "high": true},
				"production": {"low": true, "medium": true, "high": true},
			},
			"register": {"development": {"low": true, "medium": true, "high": true}},
		},
		"viewer": {
			"sees": {"public": true},
			"list": {"low": true},
			"invoke": {"production": {"low": true}},
		},
		"oncall": {
			"sees": {"internal": true},
			"list": {"high": true},
			"invoke": {"production": {"high": true}},
			"may": {"any_hour": true},
		},
		"registrar": {
			"sees": {"public": true, "internal": true},
			"list": {"low": true},
			"register": {"development": {"low": true}},
			"may": {"register_for_others": true},
		},
	},
	"teams": {"support": {"tools": {"ticket_search": true}}},
	"users": {
		"bob": {"roles": ["developer"], "teams": ["payments"]},
		"carol": {"roles": ["viewer"], "teams": ["support"]},
		"mallory": {"roles": ["developer"]},
	},
	"suspended": {"mallory": true},
}

catalog := {
	"defaults": {
		"sensitivity_level": "high",
		"environment": "production",
		"visibility": "internal",
		"http_cache_ttl": 20,
		"list_cache_ttl": 40,
	},
	"sensitivity": {
		"low": "low",
		"medium": "medium",
		"high": "high",
		"critical": "critical",
		"public": "low",
		"internal": "medium",
		"confidential": "high",
	},
	"levels": {
		"low": {"cache_ttl": 60, "below": {"medium": true, "high": true, "critical": true}, "may_be_public": true},
		"medium": {"cache_ttl": 30, "below": {"high": true, "critical": true}, "may_be_public": true},
		"high": {"cache_ttl": 10, "below": {"critical": true}, "mfa": true, "hours": "office"},
		"critical": {
			"cache_ttl": 0,
			"below": {},
			"mfa": true,
			"hours": "office",
			"parameters": {"redact": ["password"]},
		},
	},
	"tools": {
		"lookup": {"sensitivity_level": "medium", "parameters": {"remove": ["debug"], "redact": ["options/secret"]}},
		"deploy": {"sensitivity_level": "high"},
		"echo": {"sensitivity_level": "low"},
		"run_shell": {"sensitivity_level": "low", "blocked": true},
		"search": {"sensitivity_level": "medium"},
	},
	"environments": {
		"development": {"calls": {"development": true, "production": true}},
		"production": {"calls": {"production": true}},
	},
	"visibilities": {"public": true, "internal": true, "private": true},
	"hours": {"office": {
		"time_zone": "Europe/Berlin",
		"weekdays": {
			"Tuesday": {"from": 8, "to": 18},
			"Friday": {"from": 8, "to": 16.5},
		},
	}},
	"agents": {
		"trust": {"untrusted": 0, "limited": 1, "trusted": 2},
		"actions": {
			"agent:query": {"source_trust": 1, "target_trust": 1, "max_depth": 5, "cache_ttl": 30},
			"agent:delegate": {
				"source_trust": 2,
				"target_trust": 2,
				"max_depth": 3,
				"owns_capability": true,
				"cache_ttl": 5,
			},
		},
		"blocked": {"rogue": true},
	},
	"routes": {
		"health": {"GET": {"anyone": true}},
		"orders": {"GET": {"developer": true}},
	},
	"mcp": {
		"endpoints": {"mcp": {"environment": "production", "visibility": "internal"}},
		"methods": {
			"ping": "session",
			"tools/call": "tool",
			"resources/read": "resource",
			"resources/subscribe": "resource",
			"subscriptions/listen": "subscription",
			"prompts/get": "prompt",
			"completion/complete": "completion",
		},
		"resources": {"docs": "low", "file": "high", "vault": "critical"},
		"prompts": {"summarize": "low", "secret_plan": "critical"},
	},
}

# 2026-03-03 is a Tuesday; Berlin is an hour ahead of UTC.
tuesday(clock) := time.parse_rfc3339_ns(concat("", ["2026-03-03T", clock, "+01:00"]))

friday(clock) := time.parse_rfc3339_ns(concat("", ["2026-03-06T", clock, "+01:00"]))

saturday(clock) := time.parse_rfc3339_ns(concat("", ["2026-03-07T", clock, "+01:00"]))

# The difference of two documents from the base: what is put over it, and the paths that are taken out.
changed(base, over, out) := json.remove(object.union(base, over), out)
