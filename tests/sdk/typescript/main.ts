// Asks a decision point in each of the four ways, through code that was generated from proto/, and prints what came as
// JSON: tests/e2e/test_other_languages.py knows what it must be. What is below generated/ comes from ts-proto.
import { once } from "node:events";
import { credentials, type ServiceError } from "@grpc/grpc-js";
import {
  type CheckBatchResponse,
  CheckRequest,
  type CheckResponse,
  type FilterResponse,
  outcomeToJSON,
  PolicyDecisionClient,
} from "./generated/sark/pdp/v1/decision.js";

const policy = "sark/mcp/decision";
const bob = { id: "bob", roles: ["developer"] };

function told(response: CheckResponse) {
  return {
    request_id: response.requestId,
    allow: response.allow,
    outcome: outcomeToJSON(response.outcome),
    told: Boolean(response.reason && response.decisionId && response.policyRevision),
    parameters: response.filteredParameters ?? {},
  };
}

function authorized(requestId: string, tool: string): CheckRequest {
  return CheckRequest.fromPartial({
    requestId,
    policy,
    maxAge: { seconds: 60 },
    authorization: {
      action: "tool:invoke",
      user: bob,
      tool: { name: tool },
      parameters: { customer: "c-17", debug: true },
    },
  });
}

function asJson(requestId: string, tool: string, asked: string): CheckRequest {
  const document = { action: "tool:invoke", user: bob, tool: { name: tool } };
  return CheckRequest.fromPartial({ requestId, policy: asked, inputJson: Buffer.from(JSON.stringify(document)) });
}

function answered<T>(call: (done: (error: ServiceError | null, response: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => call((error, response) => (error ? reject(error) : resolve(response))));
}

const address = process.argv[2] ?? "";
const client = new PolicyDecisionClient(address, credentials.createInsecure());

const checked = await answered<CheckResponse>((done) => client.check(authorized("c-1", "customer_lookup"), done));

const checks = [
  asJson("b-1", "search_code", policy),
  asJson("b-2", "drop_database", policy),
  asJson("b-3", "search_code", "no/such"),
];
const batch = await answered<CheckBatchResponse>((done) => client.checkBatch({ checks }, done));

const stream = client.checkStream();
const streamed: CheckResponse[] = [];
for (const [index, tool] of ["search_code", "drop_database"].entries()) {
  const input = { action: "tool:invoke", user: bob, tool: { name: tool } };
  stream.write(CheckRequest.fromPartial({ requestId: `s-${index + 1}`, input }));
  const [response] = (await once(stream, "data")) as [CheckResponse];
  streamed.push(response);
}
stream.end();

const resources = ["drop_database", "search_code", "drop_database", "search_code"].map((name) => ({ name }));
const filtered = await answered<FilterResponse>((done) =>
  client.filter({ template: authorized("f-1", ""), resourceField: "tool", resources }, done),
);
client.close();

console.log(
  JSON.stringify({
    check: told(checked),
    batch: batch.results.map((result) => (result.response ? told(result.response) : result.error?.code)),
    stream: streamed.map(told),
    filter: filtered.allowed,
  }),
);
