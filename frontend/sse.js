// @ts-check
/**
 * Server-sent events over fetch: bytes in, events out. No DOM, no timers, no retries.
 *
 * Not `EventSource`: it cannot POST, cannot set headers and hides the HTTP status.
 * The mirror of `app/wire/parse.py`; both are held to `tests/vectors/sse.json` cut at every byte.
 * The rules are those of WHATWG HTML 9.2.5 and 9.2.6. Two of them are easy to get wrong:
 *
 * 1. A CR ends its line at once, and a LF that follows it is swallowed. Waiting to see whether
 *    one follows would hold an event back until the next one.
 * 2. An id is buffered until the block ends. Then it counts even if the block had no data; a
 *    block that was cut off leaves `lastEventId` alone, so that a resume asks for it again.
 *
 * @module
 */

/**
 * One dispatched event. `id` is the last one seen, which outlives the block it stood in.
 *
 * @typedef {{ id: string, event: string, data: string }} SseEvent
 */

/**
 * One event in the buffer, in UTF-16 units. `final` repeats a whole answer, by default at most
 * 8 MiB of UTF-8, as ASCII JSON, which writes one byte as up to six (`\u0000`): 48 MiB. Without a
 * bound a server that never ends a line takes all memory.
 */
export const MAX_EVENT_LENGTH = 64 * 1024 * 1024;

/** The stream holds an event above the parser's limit; nothing after it can be trusted. */
export class EventTooLargeError extends Error {
  name = "EventTooLargeError";
}

/** Cuts one response body into events, however the network cut the bytes. */
export class SseParser {
  /** The cursor to resume from. */
  lastEventId = "";
  /** Reconnection time in ms that the server asked for. @type {number | null} */
  retry = null;

  #limit;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // U+FFFD for what is not UTF-8
  #first = true; // the BOM is dropped here: Node's decoder drops a second one after a cut
  #afterCr = false;
  #line = ""; // the unfinished line; only ever appended to, so that many chunks stay linear
  #id = "";
  #event = "";
  /** @type {string[]} */
  #data = [];
  #dataLength = 0;

  /** @param {{ limit?: number }} [options] */
  constructor({ limit = MAX_EVENT_LENGTH } = {}) {
    this.#limit = limit;
  }

  /**
   * Yields the events that the chunk completes. It must be iterated to its end.
   *
   * @param {Uint8Array} chunk
   * @returns {Generator<SseEvent, void, void>}
   * @throws {EventTooLargeError} the events before the large one were yielded
   */
  *feed(chunk) {
    const text = this.#decoder.decode(chunk, { stream: true });
    if (text === "") return; // no bytes, or only the beginning of a character
    const dropped = this.#first ? "\uFEFF" : "\n"; // a BOM, or the other half of a CRLF
    let start = (this.#first || this.#afterCr) && text.startsWith(dropped) ? 1 : 0;
    this.#first = false;
    this.#afterCr = text.endsWith("\r");
    const lineEnd = /\r\n|\n|\r/g;
    lineEnd.lastIndex = start;
    for (let end = lineEnd.exec(text); end; end = lineEnd.exec(text)) {
      this.#take(text.slice(start, end.index));
      start = lineEnd.lastIndex;
      const line = this.#line;
      this.#line = "";
      if (line === "") yield* this.#dispatch();
      else this.#field(line);
    }
    this.#take(text.slice(start));
  }

  /** @param {string} piece */
  #take(piece) {
    this.#line += piece;
    if (this.#line.length + this.#dataLength > this.#limit) {
      throw new EventTooLargeError(`an event is larger than ${this.#limit} characters`);
    }
  }

  *#dispatch() {
    this.lastEventId = this.#id;
    const [event, data] = [this.#event || "message", this.#data];
    [this.#event, this.#data, this.#dataLength] = ["", [], 0]; // the id stays
    if (data.length > 0) yield { id: this.#id, event, data: data.join("\n") };
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      this.#data.push(value);
      this.#dataLength += line.length;
    } else if (name === "event") {
      this.#event = value;
    } else if (name === "id") {
      if (!value.includes("\0")) this.#id = value;
    } else if (name === "retry") {
      // A longer number is no time that anybody waits.
      if (/^[0-9]{1,15}$/.test(value)) this.retry = Number(value);
    } // else a comment (an empty name) or a field that the standard does not know
  }
}

/**
 * Yields events until the body ends; a half-received last one is dropped. Leaving the loop early
 * (break, throw, abort) cancels the body, which is how the server learns that nobody listens.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {{ parser?: SseParser, onBytes?: () => void }} [options] `onBytes` is called for every
 *   chunk, so also for comments: a heartbeat is seen although it is no event
 * @returns {AsyncGenerator<SseEvent, void, void>}
 * @throws {EventTooLargeError} and whatever broke the body
 */
export async function* readEvents(body, { parser = new SseParser(), onBytes } = {}) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes?.();
      yield* parser.feed(value);
    }
  } finally {
    await reader.cancel().catch(() => {}); // already failed: the reason was thrown above
  }
}
