// Asks a decision point in each of the four ways, through code that was generated from proto/, and prints what came as
// JSON: tests/e2e/test_other_languages.py knows what it must be. The package pdp is generated beside this file.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"smoke/pdp"
)

const policy = "sark/mcp/decision"

type answer struct {
	RequestID  string         `json:"request_id"`
	Allow      bool           `json:"allow"`
	Outcome    string         `json:"outcome"`
	Told       bool           `json:"told"`
	Parameters map[string]any `json:"parameters"`
}

func told(response *pdp.CheckResponse) answer {
	return answer{
		RequestID:  response.GetRequestId(),
		Allow:      response.GetAllow(),
		Outcome:    response.GetOutcome().String(),
		Told:       response.GetReason() != "" && response.GetDecisionId() != "" && response.GetPolicyRevision() != "",
		Parameters: response.GetFilteredParameters().AsMap(),
	}
}

func object(fields map[string]any) *structpb.Struct {
	made, err := structpb.NewStruct(fields)
	must(err)
	return made
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var bob = map[string]any{"id": "bob", "roles": []any{"developer"}}

func authorized(id, tool string) *pdp.CheckRequest {
	return &pdp.CheckRequest{
		RequestId: id,
		Policy:    policy,
		MaxAge:    durationpb.New(time.Minute),
		Document: &pdp.CheckRequest_Authorization{Authorization: &pdp.Authorization{
			Action:     "tool:invoke",
			User:       object(bob),
			Tool:       object(map[string]any{"name": tool}),
			Parameters: object(map[string]any{"customer": "c-17", "debug": true}),
		}},
	}
}

func asJSON(id, tool, asked string) *pdp.CheckRequest {
	document, err := json.Marshal(map[string]any{
		"action": "tool:invoke", "user": bob, "tool": map[string]any{"name": tool},
	})
	must(err)
	return &pdp.CheckRequest{
		RequestId: id, Policy: asked, Document: &pdp.CheckRequest_InputJson{InputJson: document},
	}
}

func batched(ctx context.Context, client pdp.PolicyDecisionClient) []any {
	response, err := client.CheckBatch(ctx, &pdp.CheckBatchRequest{Checks: []*pdp.CheckRequest{
		asJSON("b-1", "search_code", policy), asJSON("b-2", "drop_database", policy), asJSON("b-3", "search_code", "no/such"),
	}})
	must(err)
	made := []any{}
	for _, result := range response.GetResults() {
		if failed := result.GetError(); failed != nil {
			made = append(made, failed.GetCode())
		} else {
			made = append(made, told(result.GetResponse()))
		}
	}
	return made
}

func streamed(ctx context.Context, client pdp.PolicyDecisionClient) []answer {
	stream, err := client.CheckStream(ctx)
	must(err)
	made := []answer{}
	for id, tool := range []string{"search_code", "drop_database"} {
		input := map[string]any{"action": "tool:invoke", "user": bob, "tool": map[string]any{"name": tool}}
		must(stream.Send(&pdp.CheckRequest{
			RequestId: fmt.Sprintf("s-%d", id+1), Document: &pdp.CheckRequest_Input{Input: object(input)},
		}))
		response, err := stream.Recv()
		must(err)
		made = append(made, told(response))
	}
	must(stream.CloseSend())
	return made
}

func filtered(ctx context.Context, client pdp.PolicyDecisionClient) []uint32 {
	resources := []*structpb.Struct{}
	for _, name := range []string{"drop_database", "search_code", "drop_database", "search_code"} {
		resources = append(resources, object(map[string]any{"name": name}))
	}
	response, err := client.Filter(ctx, &pdp.FilterRequest{
		Template: authorized("f-1", ""), ResourceField: "tool", Resources: resources,
	})
	must(err)
	return response.GetAllowed()
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := pdp.NewPolicyDecisionClient(connection)
	checked, err := client.Check(ctx, authorized("c-1", "customer_lookup"))
	must(err)
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"check":  told(checked),
		"batch":  batched(ctx, client),
		"stream": streamed(ctx, client),
		"filter": filtered(ctx, client),
	}))
}
