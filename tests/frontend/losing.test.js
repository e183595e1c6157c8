/** Servers that go down or cannot reach their store, and what becomes of a question. */
import assert from "node:assert/strict";
import test from "node:test";

import { Run } from "../../frontend/gateway.js";
import { all, ANSWER, ask, BOUND, shown, withCode } from "./asking.js";
import {
  AGAIN, answer, breakAfter, CHAT, EVENTS, FAILED, frame, HIDDEN, LOST, RUN, send, serve, start,
  stored, TALK, WHOLE,
} from "./server.js";

/** @param {any[]} events without what is said while waiting for a connection */
const words = (events) => shown(events).filter((word) => word !== "wait connection_lost");
const REPEATED = ["start", "wait worker_lost", ...ANSWER];

for (const [how, steps] of /** @type {const} */ ([
  ["on one connection", { [CHAT]: [send([start(), ...LOST])], [HIDDEN]: [send(LOST)] }],
  [
    "once it is resumed",
    { [CHAT]: [breakAfter([start()])], [EVENTS]: [send(LOST)], [HIDDEN]: [send(LOST)] },
  ],
  [
    "in two pieces",
    {
      [CHAT]: [send([start(), ...LOST])],
      [HIDDEN]: [breakAfter(LOST.slice(0, 1)), send(LOST.slice(1))],
    },
  ],
])) {
  test(`a run that was lost before its first token, ${how}, is repeated`, BOUND, async (t) => {
    const script = { ...steps, [TALK]: [stored("running")], [AGAIN]: [send(WHOLE)] };
    const { base, requests } = await serve(t, /** @type {any} */ (script));
    assert.deepEqual(words(await all(ask(base))), REPEATED);
    const looked = requests.find(({ route }) => route === HIDDEN);
    assert.equal(looked?.headers["last-event-id"], `${RUN}.1`);
  });
}

test("a question that was never stored is put once more, with its key", BOUND, async (t) => {
  const { base, requests } = await serve(t, {
    [CHAT]: [send([start(), ...LOST]), send(WHOLE)],
    [HIDDEN]: [send(LOST)],
    [TALK]: [answer(404, { code: "not_found" })],
  });
  assert.deepEqual(words(await all(ask(base))), REPEATED);
  const [first, second] = requests.filter(({ route }) => route === CHAT);
  assert.deepEqual(second?.body, first?.body);
  assert.equal(second?.headers["idempotency-key"], first?.headers["idempotency-key"]);
});

test("an older question of the conversation is not answered instead", BOUND, async (t) => {
  const older = { id: "a0", role: "assistant", run_id: "another", status: "completed" };
  const { base, requests } = await serve(t, {
    [CHAT]: [send(FAILED("draining", true)), send(WHOLE)],
    [TALK]: [answer(200, { messages: [older] })],
  });
  const run = new Run({ text: "hi", conversationId: "c1", base }, { firstDelayMs: 5 });
  assert.deepEqual(words(await all(run)), ["start", "wait draining", ...ANSWER]);
  assert.equal(requests.at(-1)?.body.conversation_id, "c1");
});

test("a run that was lost before it began to tell is repeated", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(LOST.slice(0, 1)), send(WHOLE)],
    [EVENTS]: [send(LOST.slice(1))],
  });
  assert.deepEqual(words(await all(ask(base))), REPEATED.slice(1));
});

test("a run that was lost behind hidden tools is not repeated", BOUND, async (t) => {
  const call = frame(2, "tool_call", { id: "1", name: "mail", arguments: "{}" });
  const { base } = await serve(t, {
    [CHAT]: [send([start(), ...LOST])],
    [HIDDEN]: [send([call, ...LOST])],
  });
  const shownWords = ["start", "tool_call", "error worker_lost", "done failed"];
  assert.deepEqual(words(await all(ask(base))), shownWords);
});

test("a conversation that cannot be read yet is asked for again", BOUND, async (t) => {
  const refusal = answer(503, { code: "overloaded" }, { "Retry-After": "0" });
  const reset = (/** @type {any} */ response) => response.destroy();
  const { base } = await serve(t, {
    [CHAT]: [send(FAILED("draining", true))],
    [TALK]: [refusal, reset, stored("failed")],
    [AGAIN]: [answer(503, { code: "draining" }, { "Retry-After": "0" }), send(WHOLE)],
  });
  const waits = ["draining", "overloaded", "unreachable", "draining"].map((code) => `wait ${code}`);
  assert.deepEqual(shown(await all(ask(base))), ["start", ...waits, ...ANSWER]);
});

test("a run that is gone before its first token is repeated with its key", BOUND, async (t) => {
  const { base, requests } = await serve(t, {
    [CHAT]: [breakAfter([start()])],
    [EVENTS]: [answer(404, { code: "not_found" })],
    [TALK]: [stored("failed")],
    [AGAIN]: [send(WHOLE)],
  });
  assert.deepEqual(words(await all(ask(base))), REPEATED);
  const posted = requests.filter(({ route }) => route.startsWith("POST"));
  assert.equal(new Set(posted.map(({ headers }) => headers["idempotency-key"])).size, 1);
});

for (const [what, talk] of /** @type {const} */ ([
  ["has been answered", stored("completed")],
  ["has called a tool", stored("failed", [{ id: "1" }])],
])) {
  test(`a run that is gone and ${what} is not repeated`, BOUND, async (t) => {
    const { base } = await serve(t, {
      [CHAT]: [breakAfter([start()])],
      [EVENTS]: [answer(404, { code: "not_found" })],
      [TALK]: [talk],
    });
    await assert.rejects(all(ask(base)), withCode("run_gone"));
  });
}

test("a run that is gone again and again is given up", BOUND, async (t) => {
  const begun = () => breakAfter([start()]);
  const gone = () => answer(404, { code: "not_found" });
  const { base } = await serve(t, {
    [CHAT]: [begun()],
    [EVENTS]: [gone(), gone(), gone()],
    [TALK]: [stored("failed")],
    [AGAIN]: [begun(), begun()],
  });
  await assert.rejects(all(ask(base)), withCode("run_gone"));
});

test("a body of heartbeats alone is resumed, and 503 is waited for", BOUND, async (t) => {
  const { base, requests } = await serve(t, {
    [CHAT]: [breakAfter(WHOLE.slice(0, 2))],
    [EVENTS]: [
      send([": hb\n", ": hb\n"]),
      answer(503, { code: "overloaded" }, { "Retry-After": "0" }),
      send(WHOLE.slice(2)),
    ],
  });
  const events = shown(await all(ask(base)));
  assert.deepEqual(events.filter((word) => !word.startsWith("wait")), ANSWER);
  assert.deepEqual(events.filter((word) => word.startsWith("wait")), [
    "wait connection_lost", "wait connection_lost", "wait overloaded",
  ]);
  assert.ok(requests.slice(1).every(({ headers }) => headers["last-event-id"] === `${RUN}.2`));
});

test("a store that stays away is given up in the end", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(WHOLE.slice(0, 2))],
    [EVENTS]: Array.from({ length: 7 }, () => send([": hb\n"])),
  });
  await assert.rejects(all(ask(base)), withCode("connection_lost"));
});
