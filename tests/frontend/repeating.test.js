import assert from "node:assert/strict";
import test from "node:test";

import { all, ANSWER, ask, BOUND, shown } from "./asking.js";
import {
  AGAIN, breakAfter, CHAT, EVENTS, FAILED, frame, send, serve, start, stored, TALK, WHOLE,
} from "./server.js";

test("a failure before the first token is repeated with the same key, unseen", BOUND, async (t) => {
  const failed = () => send(FAILED("upstream_timeout", true));
  const { base, requests } = await serve(t, {
    [CHAT]: [failed()],
    [TALK]: [stored("failed")],
    [AGAIN]: [failed(), send(WHOLE)],
  });
  const twice = ["start", "wait upstream_timeout", "start", "wait upstream_timeout"];
  assert.deepEqual(shown(await all(ask(base))), [...twice, ...ANSWER]);
  const posted = requests.filter(({ route }) => route.startsWith("POST"));
  assert.equal(new Set(posted.map(({ headers }) => headers["idempotency-key"])).size, 1);
  const again = { grace_seconds: 60, parent_message_id: "a1" };
  assert.deepEqual(posted[1]?.body, again, "the question is not put once more");
  assert.deepEqual(posted[2]?.body, again);
});

test("a failure whose ending got lost is repeated once its run has ended", BOUND, async (t) => {
  const frames = FAILED("upstream_timeout", true);
  const { base } = await serve(t, {
    [CHAT]: [breakAfter(frames.slice(0, 2))],
    [EVENTS]: [send(frames.slice(2))],
    [TALK]: [stored("failed")],
    [AGAIN]: [send(WHOLE)],
  });
  const waits = ["wait connection_lost", "wait upstream_timeout"];
  assert.deepEqual(shown(await all(ask(base))), ["start", ...waits, ...ANSWER]);
});

test("the third failure before the first token is shown", BOUND, async (t) => {
  const failed = () => send(FAILED("upstream_timeout", true));
  const { base } = await serve(t, {
    [CHAT]: [failed()],
    [TALK]: [stored("failed")],
    [AGAIN]: [failed(), failed()],
  });
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

test("a failure behind events that are not shown is not repeated", BOUND, async (t) => {
  const error = { code: "upstream_broken", message: "no", retryable: true };
  const frames = [start(), frame(4, "error", error), frame(5, "done", { status: "failed" })];
  const { base } = await serve(t, { [CHAT]: [send(frames)] });
  assert.deepEqual(shown(await all(ask(base))), ["start", "error upstream_broken", "done failed"]);
});

test("a failure behind a text that was taken back is not repeated", BOUND, async (t) => {
  const error = { code: "upstream_broken", message: "no", retryable: true };
  const taken = [start(), frame(2, "token", { text: "hm" }), frame(3, "retract", { text: "hm" })];
  const failed = [frame(4, "error", error), frame(5, "done", { status: "failed" })];
  const { base } = await serve(t, { [CHAT]: [send([...taken, ...failed])] });
  assert.equal(shown(await all(ask(base))).at(-1), "done failed");
});
