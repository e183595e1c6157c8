// @ts-check
/**
 * One connection to the gateway: a request, and the events of its answer. No memory of others.
 *
 * @module
 */
import { GatewayError, problem } from "./events.js";
import { Watchdog } from "./pace.js";
import { EventTooLargeError, readEvents } from "./sse.js";

/** How long a conversation may take to come (ms). */
const FIND_MS = 15_000;

/**
 * Yields `"open"` when the server answered with a stream, then its events until the body ends.
 *
 * @param {URL} url
 * @param {RequestInit} init
 * @param {object} more
 * @param {AbortSignal} more.signal
 * @param {import("./sse.js").SseParser} more.parser
 * @param {() => number} more.silenceMs how long it may be silent from now on; heartbeats count
 * @returns {AsyncGenerator<import("./sse.js").SseEvent | "open", void, void>}
 * @throws {GatewayError} see there; or the signal's reason
 */
export async function* connect(url, init, { signal, parser, silenceMs }) {
  const watchdog = new Watchdog();
  const onBytes = () => watchdog.fed(silenceMs());
  const either = AbortSignal.any([signal, watchdog.signal]);
  let code = "unreachable";
  try {
    onBytes();
    const response = await fetch(url, { ...init, signal: either, cache: "no-store" });
    const body = await stream(response, init.method !== "POST");
    yield "open";
    code = "connection_lost";
    for await (const event of readEvents(body, { parser, onBytes })) {
      yield event;
      onBytes(); // `start` may have told another heartbeat
    }
  } catch (cause) {
    signal.throwIfAborted();
    if (watchdog.signal.aborted) throw new GatewayError("silent", { retryable: true });
    if (cause instanceof GatewayError) throw cause;
    if (cause instanceof EventTooLargeError) throw new GatewayError("bad_stream", { cause });
    throw new GatewayError(code, { retryable: true, cause }); // what fetch and the body throw
  } finally {
    watchdog.stop();
  }
}

/**
 * @param {Response} response
 * @param {boolean} resuming a run that was there a moment ago
 */
async function stream(response, resuming) {
  if (!response.ok) {
    const refused = await problem(response);
    const isGone = resuming && refused.status === 404;
    throw isGone ? new GatewayError("run_gone", { status: 404 }) : refused;
  }
  if (response.status === 204) throw new GatewayError("nothing_left");
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.body || !/^text\/event-stream\b/i.test(type)) {
    await response.body?.cancel();
    throw new GatewayError("not_a_stream", { status: response.status });
  }
  return response.body;
}

/**
 * What a conversation holds of a run; null if nothing of it is stored there.
 *
 * @param {URL} url the conversation's
 * @param {string} runId
 * @param {AbortSignal} signal
 * @param {Record<string, string>} headers
 * @returns {Promise<{ id: string, status: string, tool_calls: unknown[] } | null>}
 * @throws {GatewayError} or the signal's reason
 */
export async function findAnswer(url, runId, signal, headers) {
  const either = AbortSignal.any([signal, AbortSignal.timeout(FIND_MS)]);
  try {
    const response = await fetch(url, { headers, signal: either, cache: "no-store" });
    const refused = response.ok ? null : await problem(response);
    if (refused?.status === 404) return null;
    if (refused) throw refused;
    const { messages } = await response.json();
    const isOurs = (/** @type {any} */ each) => each.run_id === runId && each.role === "assistant";
    return messages.find(isOurs) ?? null;
  } catch (cause) {
    signal.throwIfAborted();
    if (cause instanceof GatewayError) throw cause;
    throw new GatewayError("unreachable", { retryable: true, idle: true, cause });
  }
}

/** A fresh `Idempotency-Key`. `randomUUID` is missing where the page came by plain HTTP. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
