import assert from "node:assert/strict";
import test from "node:test";

import { Run } from "../../frontend/gateway.js";
import { all, ANSWER, ask, BOUND, shown, withCode } from "./asking.js";
import {
  answer, breakAfter, CHAT, EVENTS, frame, hold, RUN, send, serve, start, WHOLE,
} from "./server.js";

test("a question is posted once, with a key, and its events come in order", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [CHAT]: [send(WHOLE)] });
  assert.deepEqual(shown(await all(ask(base))), ANSWER);
  assert.deepEqual(requests[0]?.body, { text: "hi", grace_seconds: 60 });
  assert.match(String(requests[0]?.headers["idempotency-key"]), /^[0-9a-f-]{32,36}$/);
});

test("a conversation is gone on with", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [CHAT]: [send(WHOLE)] });
  await all(new Run({ text: "hi", conversationId: "c1", base }));
  assert.equal(requests[0]?.body.conversation_id, "c1");
});

test("what is taken back comes in its place, and so do unknown events", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [
      send([
        start(),
        frame(2, "token", { text: "Let me " }),
        frame(3, "token", { text: "see." }),
        frame(4, "retract", { text: "Let me see." }),
        frame(5, "tool_call", { id: "1", name: "clock", arguments: "{}" }),
        frame(6, "news", {}),
        frame(7, "token", { text: "Hello" }),
        frame(8, "final", { text: "Hello" }),
        frame(9, "done", { status: "completed" }),
      ]),
    ],
  });
  const before = ["start", "token Let me ", "token see.", "retract Let me see."];
  const words = [...before, "tool_call", "news", "token Hello", ...ANSWER.slice(3)];
  assert.deepEqual(shown(await all(ask(base))), words);
});

test("two runs have two keys", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [CHAT]: [send(WHOLE), send(WHOLE)] });
  await all(ask(base));
  await all(ask(base));
  const keys = new Set(requests.map(({ headers }) => headers["idempotency-key"]));
  assert.equal(keys.size, 2);
});

for (const [how, drop] of /** @type {const} */ ([["ends", send], ["breaks", breakAfter]])) {
  for (const seen of [1, 2, 3]) {
    test(`a body that ${how} after event ${seen} is resumed behind it`, BOUND, async (t) => {
      const { base, requests } = await serve(t, {
        [CHAT]: [drop(WHOLE.slice(0, seen))],
        [EVENTS]: [send(WHOLE.slice(seen))],
      });
      const events = await all(ask(base));
      assert.deepEqual(shown(events).filter((word) => !word.startsWith("wait")), ANSWER);
      assert.equal(shown(events)[seen], "wait connection_lost");
      assert.equal(requests[1]?.headers["last-event-id"], `${RUN}.${seen}`);
    });
  }

  test(`a body that ${how} before start repeats the question with its key`, BOUND, async (t) => {
    const { base, requests } = await serve(t, { [CHAT]: [drop([]), send(WHOLE)] });
    assert.deepEqual(shown(await all(ask(base))), ["wait connection_lost", ...ANSWER]);
    assert.equal(requests[0]?.headers["idempotency-key"], requests[1]?.headers["idempotency-key"]);
    assert.deepEqual(requests[0]?.body, requests[1]?.body);
  });
}

test("a body that breaks behind the final text needs no resume", BOUND, async (t) => {
  const { base } = await serve(t, { [CHAT]: [breakAfter(WHOLE.slice(0, 4))] });
  assert.deepEqual(shown(await all(ask(base))), ANSWER);
});

test("an event cut in its middle is asked for again", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [send([start(), String(WHOLE[1]).slice(0, -1)])],
    [EVENTS]: [send(WHOLE.slice(1))],
  });
  assert.deepEqual(shown(await all(ask(base))).toSpliced(1, 1), ANSWER);
});

test("a drop after every single event loses and doubles nothing", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [send(WHOLE.slice(0, 1))],
    [EVENTS]: [send(WHOLE.slice(1, 2)), breakAfter(WHOLE.slice(2, 3)), send(WHOLE.slice(3))],
  });
  const words = shown(await all(ask(base))).filter((word) => !word.startsWith("wait"));
  assert.deepEqual(words, ANSWER);
});

test("events that come twice are shown once", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [send(WHOLE.slice(0, 3))],
    [EVENTS]: [send(WHOLE)],
  });
  assert.deepEqual(shown(await all(ask(base))).toSpliced(3, 1), ANSWER);
});

test("the numbers of a lost worker may leap", BOUND, async (t) => {
  const error = { code: "worker_lost", message: "no", retryable: true };
  const { base } = await serve(t, {
    [CHAT]: [
      send([
        ...WHOLE.slice(0, 2),
        frame(1_000_000, "error", error),
        frame(1_000_001, "done", { status: "failed" }),
      ]),
    ],
  });
  const words = ["start", "token Hel", "error worker_lost", "done failed"];
  assert.deepEqual(shown(await all(ask(base))), words);
});

test("three missed heartbeats are a lost connection", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [hold([start({ heartbeat_ms: 20 })])],
    [EVENTS]: [send(WHOLE.slice(1))],
  });
  assert.deepEqual(shown(await all(ask(base))).toSpliced(1, 1), ANSWER);
});

test("heartbeats keep a silent connection", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [
      (response) => {
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        response.write(start({ heartbeat_ms: 100 }));
        let beats = 0;
        const timer = setInterval(() => {
          response.write(": hb\n");
          if (++beats < 20) return; // 1 s in all, above the 300 ms of silence that are allowed
          clearInterval(timer);
          response.end(WHOLE.slice(1).join(""));
        }, 50);
      },
    ],
  });
  assert.deepEqual(shown(await all(ask(base))), ANSWER);
});

test("a run that is gone is told as such, not retried", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [send(WHOLE.slice(0, 2))],
    [EVENTS]: [answer(404, { code: "not_found" })],
  });
  await assert.rejects(all(ask(base)), withCode("run_gone"));
});

test("204 on a resume without an ending is told as such", BOUND, async (t) => {
  const { base } = await serve(t, {
    [CHAT]: [send(WHOLE.slice(0, 2))],
    [EVENTS]: [answer(204)],
  });
  await assert.rejects(all(ask(base)), withCode("nothing_left"));
});

test("a page instead of a stream is told as such", BOUND, async (t) => {
  const page = answer(200, {}, { "Content-Type": "text/html" });
  const { base } = await serve(t, { [CHAT]: [page] });
  await assert.rejects(all(ask(base)), withCode("not_a_stream"));
});

test("data that is no JSON is told as such", BOUND, async (t) => {
  const { base } = await serve(t, { [CHAT]: [send(["id: a.1\nevent: start\ndata: {\n\n"])] });
  await assert.rejects(all(ask(base)), withCode("bad_stream"));
});

for (const status of [400, 401, 403, 413, 422, 500]) {
  test(`status ${status} is not retried and its problem is kept`, BOUND, async (t) => {
    const { base } = await serve(t, { [CHAT]: [answer(status, { code: "x", detail: "why" })] });
    const expected = { name: "GatewayError", code: "x", status, detail: "why" };
    await assert.rejects(all(ask(base)), expected);
  });
}

for (const status of [409, 429, 502, 503, 504]) {
  test(`status ${status} is retried with the same key`, BOUND, async (t) => {
    const { base, requests } = await serve(t, { [CHAT]: [answer(status), send(WHOLE)] });
    assert.deepEqual(shown(await all(ask(base))), [`wait http_${status}`, ...ANSWER]);
    assert.equal(requests[0]?.headers["idempotency-key"], requests[1]?.headers["idempotency-key"]);
  });
}

test("Retry-After is honoured", BOUND, async (t) => {
  const refusal = answer(503, { code: "overloaded" }, { "Retry-After": "1" });
  const { base } = await serve(t, { [CHAT]: [refusal, send(WHOLE)] });
  const began = performance.now();
  const [wait] = await all(ask(base));
  assert.deepEqual(wait, { type: "wait", code: "overloaded", delayMs: 1000 });
  assert.ok(performance.now() - began > 990);
});

test("a Retry-After above the patience of a reader is left to the user", BOUND, async (t) => {
  const refusal = answer(429, { code: "rate_limited" }, { "Retry-After": "3600" });
  const { base } = await serve(t, { [CHAT]: [refusal] });
  await assert.rejects(all(ask(base)), { code: "rate_limited", retryAfterMs: 3_600_000 });
});

test("a server that stays away is given up, and following again goes on", BOUND, async (t) => {
  const away = answer(502);
  const { base, requests } = await serve(t, {
    [CHAT]: [send(WHOLE.slice(0, 2))],
    [EVENTS]: [...Array(7).fill(away), send(WHOLE.slice(2))],
  });
  const run = ask(base);
  await assert.rejects(all(run), withCode("http_502"));
  assert.equal(requests.length, 8);
  assert.deepEqual(shown(await all(run)), ANSWER.slice(2));
  assert.equal(requests.at(-1)?.headers["last-event-id"], `${RUN}.2`);
});

test("nobody there is given up as unreachable", BOUND, async (t) => {
  const refused = Array(8).fill((/** @type {any} */ response) => response.destroy());
  const { base } = await serve(t, { [CHAT]: refused });
  await assert.rejects(all(ask(base)), withCode("unreachable"));
});
