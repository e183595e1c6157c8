// @ts-check
/**
 * Who the browser is to the gateway. A key is exchanged for a cookie that no script can read
 * (contract, section 7) and that the browser sends along by itself, with `EventSource` too; so the
 * key is kept nowhere. No DOM.
 *
 * @module
 */
import { GatewayError, problem } from "./events.js";

/** How long an answer may take to come (ms). */
const ANSWER_MS = 15_000;
/** What a header can carry of a key or token: printable ASCII without spaces. */
const KEY = /^[!-~]+$/;

/** `caller` is `anonymous` on a gateway that asks nobody. @typedef {{ caller: string }} Session */

/**
 * The session that the browser has; null if it has none and needs one.
 *
 * @param {string | URL} [base] where the gateway is: it serves this file too
 * @returns {Promise<Session | null>}
 * @throws {GatewayError}
 */
export async function currentSession(base = import.meta.url) {
  try {
    return await read(await ask(base, {}));
  } catch (error) {
    if (error instanceof GatewayError && error.status === 401) return null;
    throw error;
  }
}

/**
 * @param {string} key an API key or a token of the gateway's identity provider
 * @param {string | URL} [base]
 * @returns {Promise<Session>}
 * @throws {GatewayError} `bad_key`: it was not sent; `unauthorized`: it is none
 */
export async function signIn(key, base = import.meta.url) {
  if (!KEY.test(key)) throw new GatewayError("bad_key");
  return read(await ask(base, { method: "POST", headers: bearer(key) }));
}

/**
 * @param {string | URL} [base]
 * @throws {GatewayError}
 */
export async function signOut(base = import.meta.url) {
  const response = await ask(base, { method: "DELETE" });
  const refused = response.ok ? null : await problem(response);
  if (refused && refused.status !== 401) throw refused; // 401: it was over
}

/**
 * The header that shows a key; none without one, where a cookie does it.
 *
 * @param {string} [key]
 * @returns {Record<string, string>}
 */
export function bearer(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * @param {string | URL} base
 * @param {RequestInit} init
 */
async function ask(base, init) {
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    return await fetch(new URL("session", base), { ...init, signal, cache: "no-store" });
  } catch (cause) {
    throw new GatewayError("unreachable", { retryable: true, idle: true, cause });
  }
}

/** @param {Response} response @returns {Promise<Session>} */
async function read(response) {
  if (!response.ok) throw await problem(response);
  const body = await response.json().catch(() => null);
  if (typeof body?.caller !== "string") throw new GatewayError("not_a_stream");
  return body;
}
