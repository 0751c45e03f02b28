# METADATA
# title: A JSON-RPC message
# description: >-
#   What an MCP client sends, from the body that Envoy passed on, or from what Envoy's own mcp filter read of it, which
#   is there without a body, too. Each field is read by itself: the message as a whole, with its id and its arguments,
#   would be in the key of every cached answer.
package envoy.message

import data.envoy.spelling

# METADATA
# title: Where the message is read from
# description: body or filter; undefined where there is no message that can be judged.
source := "body" if {
	not input.truncated_body
	input.parsed_body.jsonrpc == "2.0"
}

else := "filter" if {
	read_whole
	input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].jsonrpc == "2.0"
}

# The filter stops at its max_request_body_size; what it had read until then may not be what the server will take.
read_whole if {
	not input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].is_exceeding_limit
}

# METADATA
# title: Why there is no message that can be judged
problem := "the body did not arrive whole" if {
	not source
	input.truncated_body
}

else := "the body is not one JSON-RPC 2.0 message" if not source

else := "Envoy and the decision point read the message differently" if contradictory

else := "the message has a member that differs in capitals only from one that is judged" if {
	source == "body"
	not spelling.plain
}

contradictory if {
	source == "body"
	read_whole
	noted := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].method
	not noted == method_of_body(0)
}

else if {
	source == "body"
	read_whole
	noted := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.name
	not noted == input.parsed_body.params.name
}

else if {
	source == "body"
	read_whole
	noted := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.uri
	not noted == input.parsed_body.params.uri
}

# What the filter calls the method of an answer.
method_of_body(_) := input.parsed_body.method if input.parsed_body.method != null

else := "__jsonrpc_response"

# METADATA
# title: Its method
# description: __jsonrpc_response where it is an answer.
method("body") := method_of_body(0)

method("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].method

# METADATA
# title: The name of the tool or prompt that it is about
name("body") := input.parsed_body.params.name

name("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.name

# METADATA
# title: The URI of the resource that it is about
uri("body") := input.parsed_body.params.uri

uri("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.uri

# METADATA
# title: The kind of thing that a completion is for
# description: ref/prompt or ref/resource.
reference("body") := input.parsed_body.params.ref.type

reference("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.ref.type

# METADATA
# title: The name of the prompt that a completion is for
reference_name("body") := input.parsed_body.params.ref.name

reference_name("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.ref.name

# METADATA
# title: The URI, or its template, of the resource that a completion is for
reference_uri("body") := input.parsed_body.params.ref.uri

reference_uri("filter") := input.attributes.metadataContext.filterMetadata["envoy.filters.http.mcp"].params.ref.uri

# METADATA
# title: The URIs of the resources whose changes are asked for
subscriptions("body") := input.parsed_body.params.notifications.resourceSubscriptions
