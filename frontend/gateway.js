// @ts-check
/**
 * One run of the gateway, followed to its end through lost connections. No DOM.
 *
 * What keeps an answer whole: every event has an id, a body that ends without `done` was cut, and
 * a reader that asks again with the last id it saw gets exactly the rest. Before the first id the
 * `Idempotency-Key` does the same for the POST: repeating it joins the run that it started.
 *
 * A run that failed before its model said or did anything is asked for again (`question.js`), and
 * so is one that is gone.
 *
 * @module
 */
import { decode, GatewayError, runOf, seqOf } from "./events.js";
import { connect } from "./link.js";
import { backoff, patient, sleep } from "./pace.js";
import { Question } from "./question.js";
import { bearer } from "./session.js";
import { SseParser } from "./sse.js";
/** @import { RunEvent, ServerEvent, Status } from "./events.js" */

/** The ending of a run whose server went down has the next multiple of this as its number. */
const LEAP = 1_000_000;
/** Silence that means a dead connection: three heartbeats (ms), by default until `start` tells. */
const silenceOf = (heartbeatMs = 10_000) => 3 * heartbeatMs;
/** The server answers a stop within 10 s (contract, section 6); some more for the network (ms). */
const STOP_MS = 15_000;

export class Run {
  #base;
  #auth;
  #question;
  #id = "";
  #conversationId;
  #cursor = "";
  #firstDelayMs;
  #stopMs;
  #silenceMs = silenceOf();
  #hasBegun = false; // the model said something, or called a tool, which may have done something
  #failure = ""; // the code of an error that is not shown, because the question is asked again
  #mayLive = false; // a request was taken, or its answer got lost
  #showsTools = false; // what came before the ending is asked for, hidden or not
  /** The ending, once it is known, should `done` get lost. @type {Status | null} */
  #ended = null;
  #stopping = new AbortController();
  #tooLate = new AbortController(); // aborted when a stop was not confirmed in time
  #stopTimer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  /**
   * @param {object} question
   * @param {string} question.text
   * @param {string | null} [question.conversationId] the one to go on with
   * @param {string | URL} [question.base] where the gateway is: it serves this file too
   * @param {string} [question.key] for a program; the page has a cookie (`session.js`)
   * @param {object} [pace]
   * @param {number} [pace.firstDelayMs] before the second attempt, until `retry:` tells another
   * @param {number} [pace.stopMs] how long a stop may stay unconfirmed
   */
  constructor(
    { text, conversationId, base = import.meta.url, key },
    { firstDelayMs = 1000, stopMs = STOP_MS } = {},
  ) {
    this.#base = base;
    this.#auth = bearer(key);
    this.#firstDelayMs = firstDelayMs;
    this.#stopMs = stopMs;
    this.#conversationId = conversationId ?? "";
    this.#question = new Question(base, text, this.#conversationId, this.#auth);
  }

  /**
   * Yields the run's events in order, each once, until `done`; starts the run if there is none.
   * After a throw it may be called again and goes on where it was.
   * @param {AbortSignal} [signal] leaves; the run then lives on for the grace time
   * @returns {AsyncGenerator<RunEvent, void, void>}
   * @throws {GatewayError} when no more can be had, or the signal's reason
   */
  async *follow(signal) {
    const either = AbortSignal.any([this.#tooLate.signal, ...(signal ? [signal] : [])]);
    try {
      for (let attempt = 1; !this.#ended; attempt += 1) {
        let reason = new GatewayError("connection_lost", { retryable: true }); // the body ended
        try {
          for await (const event of this.#events(either)) {
            yield event;
            if (event.type === "done") return;
            if (event.type !== "open") attempt = 1; // news, so all is well
          }
        } catch (error) {
          if (!(error instanceof GatewayError)) throw error;
          reason = error;
        }
        if (!this.#ended) yield* this.#wait(reason, attempt, either);
      }
      yield { type: "done", status: this.#ended };
    } finally {
      clearTimeout(this.#stopTimer);
    }
  }

  /**
   * Ends the run on the server; `follow` then yields its `done`, or throws `stop_unconfirmed`.
   * Before `start` there is no id to stop but there may be a run: then `follow` goes on until the
   * key has told the id, and stops it there.
   */
  stop() {
    if (this.#stopping.signal.aborted) return;
    this.#stopping.abort();
    this.#stopTimer = setTimeout(() => this.#giveUp(), this.#stopMs);
    if (this.#id) void this.#cancel();
  }

  /** @param {number} [status] */
  #giveUp(status) {
    this.#tooLate.abort(new GatewayError("stop_unconfirmed", { status }));
  }

  /** Never throws: when it fails until it is too late, `follow` tells. */
  async #cancel() {
    const signal = this.#tooLate.signal;
    const url = new URL(`runs/${this.#id}`, this.#base);
    const request = { method: "DELETE", headers: this.#auth, signal };
    for (let attempt = 1; !signal.aborted && !this.#ended; attempt += 1) {
      const response = await fetch(url, request).catch(() => null);
      await response?.text().catch(() => ""); // read, or the connection stays taken
      if (response?.ok || response?.status === 404) return;
      if (response?.status === 401) return this.#giveUp(401);
      await sleep(backoff(attempt, this.#firstDelayMs), signal).catch(() => {});
    }
  }

  /**
   * @param {GatewayError} reason thrown, if waiting does not mend it
   * @param {number} attempt
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent, void, void>}
   */
  async *#wait(reason, attempt, signal) {
    const stopping = this.#stopping.signal;
    this.#mayLive ||= !reason.idle;
    if (!stopping.aborted || this.#mayLive) {
      const delayMs = reason.retryAfterMs ?? backoff(attempt, this.#firstDelayMs);
      if (!reason.retryable || !patient(attempt, delayMs)) throw reason;
      const hurry = stopping.aborted ? undefined : stopping; // a stop ends one wait, not each
      yield { type: "wait", code: reason.code, delayMs };
      await sleep(delayMs, signal, hurry);
    }
    if (stopping.aborted && !this.#mayLive) this.#ended = "cancelled"; // there is nothing to stop
  }

  /**
   * One connection: what is new on it.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent, void, void>}
   */
  async *#events(signal) {
    const parser = new SseParser();
    const link = { signal, parser, silenceMs: () => this.#silenceMs };
    const request = await this.#request(signal);
    let unsure = false;
    try {
      for await (const frame of connect(...request, link)) {
        if (frame === "open") {
          yield { type: "open" };
          continue;
        }
        const event = decode(frame);
        // An ending may come without an id (contract, section 7) and shows the last one again.
        const ending = event.type === "error" || event.type === "done";
        if (!ending && seqOf(frame.id) <= seqOf(this.#cursor)) continue;
        unsure = this.#isUnsure(seqOf(frame.id));
        if (unsure) break;
        this.#cursor = frame.id || this.#cursor;
        this.#id ||= runOf(frame.id);
        this.#firstDelayMs = parser.retry ?? this.#firstDelayMs;
        if (this.#take(event)) yield event;
      }
    } catch (error) {
      const gone = error instanceof GatewayError && error.code === "run_gone";
      throw gone && this.#mayRepeat ? this.#repeat("worker_lost") : error;
    }
    if (unsure) yield* this.#events(signal);
  }

  /**
   * Something came between that is not shown, as tools are not; but numbers leap to the ending of
   * a run whose server went down, too: then it is to be asked for.
   * @param {number} seq
   */
  #isUnsure(seq) {
    if (!(seq > seqOf(this.#cursor) + 1)) return false;
    if (seq % LEAP !== 0) this.#hasBegun = true;
    if (!this.#mayRepeat || this.#showsTools) return false;
    this.#showsTools = true;
    return true;
  }

  /** @param {AbortSignal} signal @returns {Promise<[URL, RequestInit]>} */
  async #request(signal) {
    if (!this.#cursor) return this.#question.request(this.#conversationId, signal);
    const url = new URL(`runs/${this.#id}/events`, this.#base);
    if (this.#showsTools) url.searchParams.set("include", "tools");
    return [url, { headers: { ...this.#auth, "Last-Event-ID": this.#cursor } }];
  }

  get #mayRepeat() {
    return !this.#hasBegun && this.#question.mayRepeat;
  }

  /** @param {string} code why @returns {GatewayError} nothing lives, and it is to be asked again */
  #repeat(code) {
    this.#question.repeat(this.#id);
    [this.#id, this.#cursor, this.#failure] = ["", "", ""];
    [this.#mayLive, this.#showsTools] = [false, false];
    const retryAfterMs = backoff(this.#question.repeats, this.#firstDelayMs);
    return new GatewayError(code, { retryable: true, idle: true, retryAfterMs });
  }

  /**
   * Keeps what the event says about the run.
   * @param {ServerEvent} event
   * @returns {boolean} whether it is for the reader; a failure that is repeated is not
   * @throws {GatewayError} the run failed, nothing is lost, and the key is free for another; or we
   *   may not read it any more, though it lives on for a while
   */
  #take(event) {
    if (event.type === "start") {
      this.#id = event.run_id;
      this.#conversationId = event.conversation_id;
      if (event.heartbeat_ms > 0) this.#silenceMs = silenceOf(event.heartbeat_ms);
      if (this.#stopping.signal.aborted) void this.#cancel();
    } else if (event.type === "final") {
      this.#ended = "completed";
    } else if (event.type === "error") {
      if (event.code === "unauthorized") throw new GatewayError(event.code, { status: 401 });
      if (event.retryable && this.#mayRepeat) {
        this.#failure = event.code;
        return false;
      }
      this.#ended = "failed";
    } else if (event.type !== "done") {
      this.#hasBegun = true;
    } else if (this.#failure) {
      throw this.#repeat(this.#failure);
    }
    return true;
  }
}
