/**
 * A gateway that plays a script, over real HTTP on 127.0.0.1. It knows nothing: each request takes
 * the next step of its route, and one that has none left fails the test.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";

export const RUN = "Zx3mYyQ0T1-fK_8vLw2RbQ";
export const CHAT = "POST /chat";
export const EVENTS = `GET /runs/${RUN}/events`;
export const HIDDEN = `${EVENTS}?include=tools`;
export const TALK = "GET /conversations/c1";
export const AGAIN = "POST /conversations/c1/regenerate";
export const STOP = `DELETE /runs/${RUN}`;
export const USAGE = { input_tokens: 1, output_tokens: 2, total_tokens: 3, estimated: false };

/** @typedef {import("node:http").ServerResponse} ServerResponse */
/** @typedef {(response: ServerResponse) => unknown} Step */

/**
 * @param {import("node:test").TestContext} t
 * @param {Record<string, Step[]>} script steps by `METHOD /path`
 */
export async function serve(t, script) {
  /** @type {{ route: string, headers: import("node:http").IncomingHttpHeaders, body: any }[]} */
  const requests = [];
  /** @type {string[]} */
  const unexpected = [];
  const server = createServer(async (request, response) => {
    const route = `${request.method} ${request.url}`;
    const body = Buffer.concat(await request.toArray()).toString();
    requests.push({ route, headers: request.headers, body: body && JSON.parse(body) });
    const step = script[route]?.shift();
    if (step) return step(response);
    unexpected.push(route);
    response.writeHead(500).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  t.after(() => {
    server.closeAllConnections();
    server.close();
    assert.deepEqual(unexpected, [], "requests without a step");
    const left = Object.entries(script).filter(([, steps]) => steps.length > 0);
    assert.deepEqual(left, [], "steps without a request");
  });
  return { base: `http://127.0.0.1:${port}/`, requests };
}

/** @param {number} seq @param {string} event @param {object} data @param {string} [more] fields */
export const frame = (seq, event, data, more = "") =>
  `id: ${RUN}.${seq}\nevent: ${event}\n${more}data: ${JSON.stringify(data)}\n\n`;

/** @param {object} [changes] */
export const start = (changes) =>
  frame(
    1,
    "start",
    { run_id: RUN, conversation_id: "c1", model: "m", heartbeat_ms: 10_000, ...changes },
    "retry: 5\n",
  );

/** A whole short run, one frame an element. */
export const WHOLE = [
  start(),
  frame(2, "token", { text: "Hel" }),
  frame(3, "token", { text: "lo" }),
  frame(4, "final", { text: "Hello", finish_reason: "stop", usage: USAGE, model: "m" }),
  frame(5, "done", { status: "completed", usage: USAGE }),
];

/** @param {string} code @param {boolean} retryable */
export const FAILED = (code, retryable) => [
  start(),
  frame(2, "error", { code, message: "no", retryable }),
  frame(3, "done", { status: "failed", usage: USAGE }),
];

/** The ending of a run whose server went down. */
export const LOST = [
  frame(1_000_000, "error", { code: "worker_lost", message: "no", retryable: true }),
  frame(1_000_001, "done", { status: "failed", usage: USAGE }),
];

/** @param {ServerResponse} response */
const head = (response) => response.writeHead(200, { "Content-Type": "text/event-stream" });

/** Sends frames, then ends the body. @param {string[]} frames @returns {Step} */
export const send = (frames) => (response) => void head(response).end(frames.join(""));

/** Sends frames, then breaks the connection. @param {string[]} frames @returns {Step} */
export const breakAfter = (frames) => (response) =>
  head(response).write(frames.join(""), () => response.destroy());

/** Sends frames and stays silent. @param {string[]} frames @returns {Step} */
export const hold = (frames) => (response) => head(response).write(frames.join(""));

/**
 * @param {number} status
 * @param {object} [body]
 * @param {Record<string, string>} [headers]
 * @returns {Step}
 */
export const answer = (status, body, headers) => (response) =>
  void response
    .writeHead(status, { "Content-Type": "application/problem+json", ...headers })
    .end(body && JSON.stringify(body));

/**
 * The conversation, with a run's question and answer in it.
 *
 * @param {string} status the answer's
 * @param {object[]} [tool_calls]
 * @returns {Step}
 */
export const stored = (status, tool_calls = []) =>
  answer(200, {
    messages: [
      { id: "a0", role: "assistant", run_id: "another", status: "completed", tool_calls: [] },
      { id: "q1", role: "user", run_id: RUN, status: "completed", tool_calls: [] },
      { id: "a1", role: "assistant", run_id: RUN, status, tool_calls },
    ],
  });
