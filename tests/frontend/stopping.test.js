import assert from "node:assert/strict";
import test from "node:test";

import { Run } from "../../frontend/gateway.js";
import { all, ask, BOUND, shown, withCode } from "./asking.js";
import {
  answer, breakAfter, CHAT, EVENTS, FAILED, frame, hold, RUN, send, serve, start, STOP, USAGE,
  WHOLE,
} from "./server.js";

const DONE = frame(9, "done", { status: "cancelled", usage: USAGE });

/** A stream that goes on until the run is deleted. @param {string[]} frames */
function untilStopped(frames) {
  /** @type {import("./server.js").ServerResponse} */
  let stream;
  return {
    stream: (/** @type {import("./server.js").ServerResponse} */ response) => {
      stream = response;
      hold(frames)(response);
    },
    stop: (/** @type {import("./server.js").ServerResponse} */ response) => {
      answer(200, { run_id: RUN, status: "cancelled", stopped_after_ms: 1 })(response);
      stream.end(DONE);
    },
  };
}

test("stopping deletes the run and the partial text stays", BOUND, async (t) => {
  const live = untilStopped(WHOLE.slice(0, 2));
  const { base } = await serve(t, { [CHAT]: [live.stream], [STOP]: [live.stop] });
  const run = ask(base);
  const events = await all(run, ({ type }) => type === "token" && run.stop());
  assert.deepEqual(shown(events), ["start", "token Hel", "done cancelled"]);
});

test("stopping before start waits for the id and deletes the run", BOUND, async (t) => {
  const live = untilStopped([start()]);
  /** @type {Run} */
  let run;
  const { base } = await serve(t, {
    [CHAT]: [(response) => (run.stop(), live.stream(response))],
    [STOP]: [live.stop],
  });
  run = ask(base);
  assert.deepEqual(shown(await all(run)), ["start", "done cancelled"]);
});

test("stopping while the lost start is waited for joins the run to delete it", BOUND, async (t) => {
  const live = untilStopped([start()]);
  const { base, requests } = await serve(t, {
    [CHAT]: [breakAfter([]), live.stream],
    [STOP]: [live.stop],
  });
  const run = new Run({ text: "hi", base }, { firstDelayMs: 60_000 }); // the stop ends the wait
  const events = await all(run, ({ type }) => type === "wait" && run.stop());
  assert.deepEqual(shown(events), ["wait connection_lost", "start", "done cancelled"]);
  assert.equal(requests[0]?.headers["idempotency-key"], requests[1]?.headers["idempotency-key"]);
});

test("stopping when nothing was started starts nothing", BOUND, async (t) => {
  const refusal = answer(503, { code: "overloaded" }, { "Retry-After": "20" });
  const { base } = await serve(t, { [CHAT]: [refusal] });
  const run = ask(base);
  const events = await all(run, ({ type }) => type === "wait" && run.stop());
  assert.deepEqual(shown(events), ["wait overloaded", "done cancelled"]);
});

test("stopping between two repeats of a failed run starts nothing", BOUND, async (t) => {
  const { base } = await serve(t, { [CHAT]: [send(FAILED("upstream_timeout", true))] });
  const run = ask(base);
  const events = await all(run, ({ type }) => type === "wait" && run.stop());
  assert.deepEqual(shown(events), ["start", "wait upstream_timeout", "done cancelled"]);
});

test("a stop that is not taken is asked for again", BOUND, async (t) => {
  const live = untilStopped(WHOLE.slice(0, 2));
  const { base } = await serve(t, { [CHAT]: [live.stream], [STOP]: [answer(503), live.stop] });
  const run = ask(base);
  const events = await all(run, ({ type }) => type === "token" && run.stop());
  assert.equal(shown(events).at(-1), "done cancelled");
});

test("stopping while the connection is lost deletes the run", BOUND, async (t) => {
  const cancelled = answer(200, { run_id: RUN, status: "cancelled", stopped_after_ms: 1 });
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(WHOLE.slice(0, 2))],
    [EVENTS]: [send([DONE])],
    [STOP]: [cancelled],
  });
  const run = ask(base);
  const events = await all(run, ({ type }) => type === "wait" && run.stop());
  assert.equal(shown(events).at(-1), "done cancelled");
});

test("a stop that nobody confirms is told as such", BOUND, async (t) => {
  const closed = Promise.withResolvers();
  const { base } = await serve(t, {
    [CHAT]: [(response) => (response.on("close", closed.resolve), hold([start()])(response))],
    [STOP]: [hold([])],
  });
  const run = new Run({ text: "hi", base }, { stopMs: 50 });
  const events = all(run, ({ type }) => type === "start" && run.stop());
  await assert.rejects(events, withCode("stop_unconfirmed"));
  await closed.promise;
});

test("leaving closes the connection and throws the reason", BOUND, async (t) => {
  const closed = Promise.withResolvers();
  const { base } = await serve(t, {
    [CHAT]: [
      (response) => {
        response.on("close", closed.resolve);
        hold(WHOLE.slice(0, 2))(response);
      },
    ],
  });
  const leave = new AbortController();
  const reason = new Error("left");
  await assert.rejects(async () => {
    for await (const event of ask(base).follow(leave.signal)) {
      if (event.type === "token") leave.abort(reason);
    }
  }, reason);
  await closed.promise;
});

test("503 on a resume is no sign that nothing is to be stopped", BOUND, async (t) => {
  const live = untilStopped(WHOLE.slice(0, 2));
  const refusal = answer(503, { code: "overloaded" }, { "Retry-After": "0" });
  /** @type {Run} */
  let run;
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(WHOLE.slice(0, 2))],
    [EVENTS]: [(response) => (run.stop(), refusal(response)), live.stream],
    [STOP]: [refusal, live.stop],
  });
  run = ask(base);
  assert.deepEqual(shown(await all(run)).at(-1), "done cancelled");
});

test("503 is no sign that an earlier request began nothing", BOUND, async (t) => {
  const live = untilStopped([start()]);
  const refusal = answer(503, { code: "overloaded" }, { "Retry-After": "20" });
  const { base } = await serve(t, {
    [CHAT]: [breakAfter([]), refusal, live.stream],
    [STOP]: [live.stop],
  });
  const run = ask(base);
  const events = await all(run, ({ code }) => code === "overloaded" && run.stop());
  const waits = ["wait connection_lost", "wait overloaded"];
  assert.deepEqual(shown(events), [...waits, "start", "done cancelled"]);
});
