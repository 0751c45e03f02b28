package envoy.authz_test

import data.envoy.authz
import data.sark.fixtures

ask(document) := answer if {
	answer := authz.allow with input as document
		with data.catalog as fixtures.catalog
		with data.directory as fixtures.directory
}

http(user, method, path) := {
	"attributes": {"request": {"http": {
		"method": method,
		"path": concat("", ["/", concat("/", path)]),
		"headers": {"x-sark-user": user},
	}}},
	"parsed_path": path,
}

anonymous(method, path) := json.remove(http("", method, path), ["attributes/request/http/headers/x-sark-user"])

refusal(document) := answer.reason if {
	answer := ask(document)
	answer.allowed == false
	answer.http_status == 403
	answer.headers == {"content-type": "application/json"}
	json.unmarshal(answer.body) == {"error": answer.reason}
}

test_open_to_anyone if {
	answer := {"allowed": true, "reason": "the route is open to anyone", "cache_ttl": 20}
	ask(anonymous("GET", ["health"])) == answer
	ask(http("mallory", "GET", ["health", "ready"])) == answer
}

test_open_to_a_role if {
	ask(http("bob", "GET", ["orders", "17"])) == {
		"allowed": true,
		"reason": "the route is open to a role of the user",
		"cache_ttl": 20,
	}
}

test_other_roles if refusal(http("carol", "GET", ["orders"])) == "the route is not open to a role of the user"

test_other_methods if {
	refusal(http("bob", "POST", ["orders"])) == "the route is not known"
	refusal(http("bob", "get", ["orders"])) == "the route is not known"
}

test_unknown_routes if {
	every path in [[""], ["admin"], ["", "orders"], ["Orders"], []] {
		refusal(http("bob", "GET", path)) == "the route is not known"
	}
	refusal({}) == "the route is not known"
}

test_no_user if refusal(anonymous("GET", ["orders"])) == "the request names no user"

test_unknown_user if {
	every user in ["eve", "", "Bob", "bob,ada"] {
		refusal(http(user, "GET", ["orders"])) == "the user is not known"
	}
}

test_suspended_user if refusal(http("mallory", "GET", ["orders"])) == "the user is suspended"

verified(user, method, path) := object.union(http("bob", method, path), {"user": user, "principal": {"method": "jwt"}})

test_verified_user if {
	ask(verified({"id": "bob"}, "GET", ["orders"])).allowed
	refusal(verified({"id": "carol"}, "GET", ["orders"])) == "the route is not open to a role of the user"
	refusal(verified({"id": "eve"}, "GET", ["orders"])) == "the user is not known"
}

test_verified_roles if {
	ask(verified({"id": "eve", "roles": ["developer"]}, "GET", ["orders"])).allowed
	refusal(verified({"id": "bob", "roles": ["guest"]}, "GET", ["orders"])) == "the route is not open to a role of the user"
	refusal(verified({"id": "mallory", "roles": ["developer"]}, "GET", ["orders"])) == "the user is suspended"
}

test_header_is_no_proof if refusal(object.union(verified(null, "GET", ["orders"]), {"principal": {"method": "none"}})) == "the request names no user"

test_ambiguous_paths if {
	every segment in ["..", ".", "..;", "...", "%2e%2e", "..\\admin", "a%2fb"] {
		refusal(http("bob", "GET", ["health", segment, "orders"])) == "the path is ambiguous"
	}
}
