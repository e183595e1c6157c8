// @ts-check
/**
 * What the gateway sends, as types, and what can go wrong, as one error class.
 *
 * @module
 */

/** @typedef {{ input_tokens: number, output_tokens: number, total_tokens: number }} Usage */
/** @typedef {"completed" | "failed" | "cancelled"} Status */

/**
 * The events of a run. `draft`, `reasoning` and the tool events are never asked for here, and
 * events that a newer gateway adds are passed on: whoever shows a run ignores what it does not
 * know.
 *
 * @typedef {(
 *   | { type: "start", run_id: string, conversation_id: string, model: string,
 *       heartbeat_ms: number }
 *   | { type: "token", text: string }
 *   | { type: "retract", text: string }
 *   | { type: "final", text: string, finish_reason: string, usage: Usage | null, model: string }
 *   | { type: "error", code: string, message: string, retryable: boolean }
 *   | { type: "done", status: Status, usage?: Usage | null }
 * )} ServerEvent
 */

/**
 * What the client says about the connection. `wait`: it will try again by itself, after `delayMs`
 * or, without it, when the browser pleases. `open`: a stream that had been lost is back.
 *
 * @typedef {(
 *   | { type: "wait", code: string, delayMs?: number }
 *   | { type: "open" }
 * )} LinkEvent
 */

/** @typedef {ServerEvent | LinkEvent} RunEvent */

/**
 * Why a run can not be followed any more. `code` is one of the gateway's (contract, section 8) or:
 *
 * - `unreachable`, `connection_lost`, `silent`: nobody answers, the stream broke, or three
 *   heartbeats did not come
 * - `run_gone`: the server does not have the run any more, so the rest of the answer is lost
 * - `nothing_left`: the server says that everything was sent, yet the ending never came
 * - `not_a_stream`, `bad_stream`: something else answered, or its events make no sense
 * - `stop_unconfirmed`: nobody answered the stop in time, or nobody may stop it any more
 * - `bad_key`: what was typed is no key
 *
 * With `status` 401 somebody has to sign in first.
 */
export class GatewayError extends Error {
  name = "GatewayError";

  /**
   * @param {string} code
   * @param {object} [more]
   * @param {number} [more.status] HTTP status, when a response came
   * @param {string} [more.detail] the server's own words
   * @param {number} [more.retryAfterMs] what the server asked to wait
   * @param {boolean} [more.retryable] trying the same again can help
   * @param {boolean} [more.idle] no run is alive, unless an earlier request began one
   * @param {unknown} [more.cause]
   */
  constructor(code, { status, detail, retryAfterMs, retryable = false, idle = false, cause } = {}) {
    super(detail ?? code, { cause });
    this.code = code;
    this.status = status;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
    this.retryable = retryable;
    this.idle = idle;
  }
}

/**
 * @param {{ event: string, data: string }} frame
 * @returns {ServerEvent}
 * @throws {GatewayError} `bad_stream`
 */
export function decode({ event, data }) {
  try {
    return { ...JSON.parse(data), type: event };
  } catch (cause) {
    throw new GatewayError("bad_stream", { cause });
  }
}

/** The run's id in an id `<run_id>.<seq>`. @param {string} id */
export const runOf = (id) => id.slice(0, Math.max(0, id.lastIndexOf(".")));

/**
 * The number in an id `<run_id>.<seq>`; NaN for any other id.
 *
 * @param {string} id
 */
export function seqOf(id) {
  return Number(/\.([0-9]+)$/.exec(id)?.[1] ?? NaN);
}

const REFUSED = [409, 429, 503]; // busy, too many, overloaded or draining: nothing was started
const GATEWAY_IN_BETWEEN = [502, 504]; // from a proxy: a run may or may not be alive

/**
 * Reads `application/problem+json` (RFC 9457), or makes do with the status.
 *
 * @param {Response} response one that is not `ok`
 */
export async function problem(response) {
  const { status, headers } = response;
  const body = await response.json().catch(() => null); // a proxy's page is no JSON
  const code = typeof body?.code === "string" ? body.code : `http_${status}`;
  const detail = typeof body?.detail === "string" ? body.detail : undefined;
  const idle = REFUSED.includes(status);
  const retryable = idle || GATEWAY_IN_BETWEEN.includes(status);
  const retryAfterMs = retryAfter(headers.get("Retry-After"));
  return new GatewayError(code, { status, detail, retryAfterMs, retryable, idle });
}

/**
 * `Retry-After` in ms: seconds or a date (RFC 9110, 10.2.3).
 *
 * @param {string | null} value
 */
export function retryAfter(value) {
  if (value === null) return undefined;
  if (/^[0-9]+$/.test(value)) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}
