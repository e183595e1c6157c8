/**
 * A key for a session.
 */
import assert from "node:assert/strict";
import test from "node:test";

import { currentSession, signIn, signOut } from "../../frontend/session.js";
import { BOUND, withCode } from "./asking.js";
import { answer, serve } from "./server.js";

const [LOOK, IN, OUT] = ["GET /session", "POST /session", "DELETE /session"];
const needed = answer(401, { code: "unauthorized", detail: "no" });
const SESSION = { caller: "key:abc", expires_at: "2026-11-22T10:00:00Z" };

test("who has no session is told so, and who has one, whose it is", BOUND, async (t) => {
  const { base } = await serve(t, { [LOOK]: [needed, answer(200, SESSION)] });
  assert.equal(await currentSession(base), null);
  assert.deepEqual(await currentSession(base), SESSION);
});

test("a gateway that does not say who calls is none", BOUND, async (t) => {
  const { base } = await serve(t, { [LOOK]: [answer(200), answer(404), answer(200, { a: 1 })] });
  await assert.rejects(currentSession(base), withCode("not_a_stream"));
  await assert.rejects(currentSession(base), withCode("http_404"));
  await assert.rejects(currentSession(base), withCode("not_a_stream"));
});

test("a key goes into a header, and nowhere else", BOUND, async (t) => {
  const { base, requests } = await serve(t, { [IN]: [answer(201, SESSION)] });
  assert.deepEqual(await signIn("gw_a_b", base), SESSION);
  assert.equal(requests[0]?.headers.authorization, "Bearer gw_a_b");
  assert.equal(requests[0]?.body, "");
});

for (const key of ["", "gw a", "gw_\u00fc", "gw_\u2026", "gw_\r\nx: y"]) {
  test(`${JSON.stringify(key)} is no key and is not sent`, BOUND, async (t) => {
    const { base } = await serve(t, {});
    await assert.rejects(signIn(key, base), withCode("bad_key"));
  });
}

test("a refused key is told with its status, a limit with its time", BOUND, async (t) => {
  const limit = answer(429, { code: "rate_limited" }, { "Retry-After": "42" });
  const { base } = await serve(t, { [IN]: [needed, limit] });
  await assert.rejects(signIn("x", base), { code: "unauthorized", status: 401 });
  await assert.rejects(signIn("x", base), { code: "rate_limited", retryAfterMs: 42_000 });
});

test("signing out of a session that is over is signing out", BOUND, async (t) => {
  const { base } = await serve(t, { [OUT]: [answer(204), needed, answer(503)] });
  await signOut(base);
  await signOut(base);
  await assert.rejects(signOut(base), { status: 503 });
});

test("nobody there is told as such", BOUND, async () => {
  const nowhere = "http://127.0.0.1:1/";
  for (const ask of [currentSession(nowhere), signIn("x", nowhere), signOut(nowhere)]) {
    await assert.rejects(ask, withCode("unreachable"));
  }
});
