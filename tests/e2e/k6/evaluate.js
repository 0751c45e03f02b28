// Posts {user_id, action, tool, parameters} to /api/v1/policy/evaluate, as load scripts for SARK do, and checks for 200.
//
// k6 run --env BASE_URL=http://127.0.0.1:9002 --vus 10 --duration 30s tests/e2e/k6/evaluate.js
import http from 'k6/http';
import { check } from 'k6';

const BASE_URL = __ENV.BASE_URL || 'http://127.0.0.1:9002';
const TOOLS = ['search_code', 'drop_database', 'customer_lookup'];

export const options = {
  thresholds: { checks: ['rate==1.0'], http_req_failed: ['rate==0.0'] },
};

export default function () {
  const asked = {
    user_id: `user-${__VU}`,
    action: 'tool:invoke',
    tool: TOOLS[__ITER % TOOLS.length],
    parameters: { query: `turn ${__ITER}` },
  };
  const answer = http.post(`${BASE_URL}/api/v1/policy/evaluate`, JSON.stringify(asked), {
    headers: { 'Content-Type': 'application/json', 'X-API-Key': 'not looked at' },
  });
  check(answer, {
    'status is 200': (r) => r.status === 200,
    'there is a decision': (r) => ['allow', 'deny'].includes(r.json('decision')),
    'it has a reason': (r) => r.json('reason') !== '',
  });
}
