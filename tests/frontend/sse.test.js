import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { EventTooLargeError, readEvents, SseParser } from "../../frontend/sse.js";

const MIB = 1024 * 1024;
const { vectors } = JSON.parse(
  readFileSync(new URL("../vectors/sse.json", import.meta.url), "utf8"),
);

/** @param {string} text every character one byte */
const bytesOf = (text) => Buffer.from(text, "latin1");

/** @param {any} vector @param {Uint8Array[]} chunks @param {string} where */
function assertReads(vector, chunks, where) {
  const parser = new SseParser();
  const events = chunks.flatMap((chunk) => [...parser.feed(chunk)]);
  assert.deepEqual(events, vector.events, where);
  assert.equal(parser.retry, vector.retry ?? null, where);
  assert.equal(parser.lastEventId, vector.last_event_id ?? "", where);
}

/** @param {...string} chunks */
const bodyOf = (...chunks) => ReadableStream.from(chunks.map(bytesOf));

test("any cut of the bytes gives the same events", async (t) => {
  for (const vector of vectors) {
    await t.test(vector.name, () => {
      const wire = bytesOf(vector.wire);
      for (let cut = 0; cut <= wire.length; cut++) {
        assertReads(vector, [wire.subarray(0, cut), wire.subarray(cut)], `cut at ${cut}`);
      }
    });
  }
});

test("one byte at a time gives the same events", async (t) => {
  for (const vector of vectors) {
    await t.test(vector.name, () => {
      const wire = bytesOf(vector.wire);
      assertReads(vector, Array.from(wire, (byte) => Uint8Array.of(byte)), "byte by byte");
    });
  }
});

for (const end of ["\n\n", "\r\r", "\r\n\r"]) {
  test(`an event leaves with the byte that ends it: ${JSON.stringify(end)}`, () => {
    const parser = new SseParser();
    assert.deepEqual([...parser.feed(bytesOf("data: a" + end.slice(0, -1)))], []);
    const events = [...parser.feed(bytesOf(end.slice(-1)))];
    assert.deepEqual(events, [{ id: "", event: "message", data: "a" }]);
  });
}

test("an id counts only once its block has ended", () => {
  const parser = new SseParser();
  assert.equal([...parser.feed(bytesOf("id: 1\ndata: a\n\nid: 2\ndata: b\n"))].length, 1);
  assert.equal(parser.lastEventId, "1");
  assert.equal([...parser.feed(bytesOf("\n"))].length, 1);
  assert.equal(parser.lastEventId, "2");
});

for (const size of [1, 1024]) {
  // About 0.2 s; quadratic work would take minutes.
  test(`a line of 1 MiB in pieces of ${size} takes linear time`, { timeout: 10_000 }, () => {
    const parser = new SseParser();
    const wire = bytesOf(`data: ${"x".repeat(MIB)}\n\n`);
    const events = [];
    for (let at = 0; at < wire.length; at += size) {
      events.push(...parser.feed(wire.subarray(at, at + size)));
    }
    assert.deepEqual(events.map((event) => event.data.length), [MIB]);
  });
}

for (const wire of ["data: " + "x".repeat(95), ":".repeat(101), "data: x\n".repeat(15)]) {
  test(`an event above the limit is refused, those before it are kept: ${wire.slice(0, 8)}`, () => {
    const fed = new SseParser({ limit: 100 }).feed(bytesOf("data: a\n\n" + wire));
    assert.equal(fed.next().value?.data, "a");
    assert.throws(() => fed.next(), EventTooLargeError);
  });
}

test("the limit is for one event, not for the stream", () => {
  const fed = new SseParser({ limit: 100 }).feed(bytesOf("data: x\ndata: y\n\n".repeat(50)));
  assert.equal([...fed].length, 50);
});

test("heartbeats are no events, yet the caller learns that something arrived", async () => {
  let arrivals = 0;
  const body = bodyOf(": hb\n", ": hb\n", "data: a\n\n");
  const events = await Array.fromAsync(readEvents(body, { onBytes: () => arrivals++ }));
  assert.equal(events.length, 1);
  assert.equal(arrivals, 3);
});

test("leaving the loop cancels the body", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(bytesOf("data: x\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const event of readEvents(body)) {
    assert.equal(event.data, "x");
    break;
  }
  assert.equal(cancelled, true);
});

test("a broken connection is thrown, not swallowed", async () => {
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(bytesOf("data: x\n\n")),
    pull: (controller) => controller.error(new TypeError("network")),
  });
  await assert.rejects(Array.fromAsync(readEvents(body)), /network/);
});
