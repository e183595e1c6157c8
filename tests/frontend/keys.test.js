/**
 * Runs with a key, and runs whose key or session ends.
 */
import assert from "node:assert/strict";
import test from "node:test";

import { Run } from "../../frontend/gateway.js";
import { all, ANSWER, ask, BOUND, shown } from "./asking.js";
import {
  AGAIN, answer, breakAfter, CHAT, EVENTS, FAILED, hold, RUN, send, serve, start, STOP, stored,
  TALK, WHOLE,
} from "./server.js";

/** What a reader gets that may not read any more: without ids, because the log has none of it. */
const REFUSED = [
  'event: error\ndata: {"code":"unauthorized","message":"no","retryable":false}\n\n',
  'event: done\ndata: {"status":"failed","usage":null}\n\n',
];
const needed = answer(401, { code: "unauthorized", detail: "no" });

test("a key is shown with each request, and stands in no address", BOUND, async (t) => {
  const { base, requests } = await serve(t, {
    [CHAT]: [send(FAILED("upstream_unavailable", true))],
    [TALK]: [stored("failed")],
    [AGAIN]: [breakAfter(WHOLE.slice(0, 2))],
    [EVENTS]: [send(WHOLE.slice(2))],
    [STOP]: [answer(200)],
  });
  const run = new Run({ text: "hi", base, key: "gw_a_b" }, { firstDelayMs: 5 });
  await all(run, ({ code }) => code === "connection_lost" && run.stop());
  const shownKeys = requests.map(({ headers }) => headers.authorization);
  assert.deepEqual(shownKeys, requests.map(() => "Bearer gw_a_b"));
  assert.equal(requests.length, 5);
  assert.ok(requests.every(({ route }) => !route.includes("gw_")));
});

test("without a key there is no header of one", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [CHAT]: [send(WHOLE)] });
  await all(ask(base));
  assert.equal(requests[0]?.headers.authorization, undefined);
});

test("a refused question is posted again with its key once one may", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [CHAT]: [needed, send(WHOLE)] });
  const run = ask(base);
  await assert.rejects(all(run), { code: "unauthorized", status: 401 });
  assert.deepEqual(shown(await all(run)), ANSWER);
  assert.equal(requests[0]?.headers["idempotency-key"], requests[1]?.headers["idempotency-key"]);
  assert.deepEqual(requests[0]?.body, requests[1]?.body);
});

test("a reader who may not read any more goes on where it was once it may", BOUND, async (t) => {
  const { base, requests } = await serve(t, {
    [CHAT]: [send([...WHOLE.slice(0, 2), ...REFUSED])],
    [EVENTS]: [send(REFUSED), needed, send(WHOLE.slice(2))],
  });
  const run = ask(base);
  /** @type {any[]} */
  const seen = [];
  for (let times = 0; times < 3; times += 1) {
    await assert.rejects(all(run, (event) => seen.push(event)), { status: 401 });
  }
  await all(run, (event) => seen.push(event));
  assert.deepEqual(shown(seen), ANSWER);
  const cursors = requests.slice(1).map(({ headers }) => headers["last-event-id"]);
  assert.deepEqual(cursors, Array(3).fill(`${RUN}.2`));
});

test("a stop that nobody may ask for any more is told at once", BOUND, async (t) => {
  const { base } = await serve(t, { [CHAT]: [hold([start()])], [STOP]: [needed] });
  const run = ask(base);
  const events = all(run, ({ type }) => type === "start" && run.stop());
  await assert.rejects(events, { code: "stop_unconfirmed", status: 401 });
});
