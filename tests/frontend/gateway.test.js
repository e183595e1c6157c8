import assert from "node:assert/strict";
import test from "node:test";

import { GatewayError } from "../../frontend/events.js";
import { Run } from "../../frontend/gateway.js";
import {
  answer, breakAfter, CHAT, EVENTS, FAILED, frame, hold, RUN, send, serve, start, STOP, USAGE,
  WHOLE,
} from "./server.js";

const BOUND = { timeout: 10_000 };
const DONE = frame(9, "done", { status: "cancelled", usage: USAGE });

/** @param {string} base */
const ask = (base) => new Run({ text: "hi", base }, { firstDelayMs: 5 });

/** @param {Run} run @param {(event: any) => void} [seen] */
async function all(run, seen = () => {}) {
  const events = [];
  for await (const event of run.follow()) {
    events.push(event);
    seen(event);
  }
  return events;
}

/** What was shown, in order; `open` left out. @param {any[]} events */
const shown = (events) =>
  events
    .filter(({ type }) => type !== "open")
    .map(({ type, text, code, status }) => [type, text ?? code ?? status].filter(Boolean).join(" "));

/** @param {string} code @returns {(error: unknown) => boolean} */
const withCode = (code) => (error) => error instanceof GatewayError && error.code === code;

const ANSWER = ["start", "token Hel", "token lo", "final Hello", "done completed"];

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

test("an ending without an id is not taken for a double", BOUND, async (t) => {
  const error = { code: "unauthorized", message: "no", retryable: false };
  const { base } = await serve(t, {
    [CHAT]: [
      send([
        ...WHOLE.slice(0, 2),
        `event: error\ndata: ${JSON.stringify(error)}\n\n`,
        'event: done\ndata: {"status":"failed","usage":null}\n\n',
      ]),
    ],
  });
  const words = ["start", "token Hel", "error unauthorized", "done failed"];
  assert.deepEqual(shown(await all(ask(base))), words);
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

test("a failure before the first token is repeated with the same key, unseen", BOUND, async (t) => {
  const failed = () => send(FAILED("upstream_timeout", true));
  const { base, requests } = await serve(t, { [CHAT]: [failed(), failed(), send(WHOLE)] });
  const twice = ["start", "wait upstream_timeout", "start", "wait upstream_timeout"];
  assert.deepEqual(shown(await all(ask(base))), [...twice, ...ANSWER]);
  assert.equal(new Set(requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
});

test("a failure whose ending got lost is repeated once its run has ended", BOUND, async (t) => {
  const frames = FAILED("upstream_timeout", true);
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(frames.slice(0, 2)), send(WHOLE)],
    [EVENTS]: [send(frames.slice(2))],
  });
  const waits = ["wait connection_lost", "wait upstream_timeout"];
  assert.deepEqual(shown(await all(ask(base))), ["start", ...waits, ...ANSWER]);
});

test("the third failure before the first token is shown", BOUND, async (t) => {
  const failed = () => send(FAILED("upstream_timeout", true));
  const { base } = await serve(t, { [CHAT]: [failed(), failed(), failed()] });
  const words = shown(await all(ask(base)));
  assert.deepEqual(words.slice(-3), ["start", "error upstream_timeout", "done failed"]);
});

test("a failure that cannot be mended is not repeated", BOUND, async (t) => {
  const { base } = await serve(t, { [CHAT]: [send(FAILED("upstream_auth", false))] });
  assert.deepEqual(shown(await all(ask(base))), ["start", "error upstream_auth", "done failed"]);
});

test("a failure behind the first token is not repeated and the text stays", BOUND, async (t) => {
  const error = { code: "upstream_broken", message: "no", retryable: true };
  const done = frame(4, "done", { status: "failed" });
  const frames = [...WHOLE.slice(0, 2), frame(3, "error", error), done];
  const { base } = await serve(t, { [CHAT]: [send(frames)] });
  const words = ["start", "token Hel", "error upstream_broken", "done failed"];
  assert.deepEqual(shown(await all(ask(base))), words);
});

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
