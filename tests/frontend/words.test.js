import assert from "node:assert/strict";
import test from "node:test";

import { finish, givingUp, refusal, sentence, waiting } from "../../frontend/words.js";

/** Every code of the contract, section 8, and those that the page gives itself. */
const CODES = `
  invalid_request bad_cursor unauthorized forbidden not_found method_not_allowed request_timeout
  not_acceptable payload_too_large uri_too_long unsupported_media_type headers_too_large
  idempotency_conflict conversation_busy rate_limited overloaded draining upstream_unavailable
  upstream_rate_limited upstream_timeout upstream_stalled upstream_broken worker_lost upstream_auth
  upstream_rejected run_timeout too_many_iterations answer_too_large internal cancelled
  unreachable connection_lost silent run_gone nothing_left not_a_stream bad_stream
  bad_key stop_unconfirmed eventsource_closed
`.trim().split(/\s+/);

for (const code of CODES) {
  test(`${code} has a sentence`, () => {
    assert.match(sentence(code), /^[A-Z].*\.$/);
    assert.notEqual(sentence(code), sentence(code + "_unknown").replace("_unknown", ""));
    assert.ok(!sentence(code).includes("_"));
  });
}

test("an unknown code is told in the server's words, or at least by its name", () => {
  assert.equal(sentence("new_code", "Something new."), "Something new.");
  assert.equal(sentence("new_code"), "Something went wrong (new_code).");
  assert.equal(sentence("toString"), "Something went wrong (toString).");
});

test("waiting says what happened, what is done and when", () => {
  const lost = waiting({ code: "connection_lost", delayMs: 1900 });
  assert.equal(lost, "The connection was lost, reconnecting in 2 s…");
  const busy = waiting({ code: "overloaded", delayMs: 100 });
  assert.equal(busy, "The gateway is busy, trying again in 1 s…");
  assert.equal(waiting({ code: "silent" }), "The connection went silent, reconnecting…");
});

test("giving up says how long the server asks to wait", () => {
  const words = (/** @type {number} */ ms) => givingUp({ code: "overloaded", retryAfterMs: ms });
  assert.equal(words(45_000), "The gateway is busy. Please wait 45 seconds.");
  assert.equal(words(1000), "The gateway is busy. Please wait 1 second.");
  assert.equal(words(300_000), "The gateway is busy. Please wait 5 minutes.");
  assert.equal(words(36_000_000), "The gateway is busy. Please wait 10 hours.");
});

test("a limit is told as the server names it", () => {
  const error = { code: "rate_limited", status: 429, retryAfterMs: 7000 };
  const detail = "This caller has reached its limit of 5 runs at once.";
  for (const words of [givingUp, refusal]) {
    assert.equal(words({ ...error, detail }), `${detail} Please wait 7 seconds.`);
    assert.match(words(error), /limit .* is reached\. Please wait 7 seconds\./);
  }
});

test("only a key that was looked at is called wrong", () => {
  assert.match(refusal({ code: "unauthorized", status: 401 }), /does not accept this key/);
  assert.equal(refusal({ code: "unreachable" }), "The gateway cannot be reached.");
});

test("a conversation that stays busy is told, and what goes on nevertheless", () => {
  const words = givingUp({ code: "conversation_busy", retryAfterMs: 2000 });
  assert.match(words, /still being written\. A new chat does not/);
});

test("only an unusual end of the model is remarked on", () => {
  assert.equal(finish("stop"), "");
  assert.match(finish("length"), /length/);
});
