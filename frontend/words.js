// @ts-check
/**
 * Every code as a sentence for the person who asked: what happened, and what helps.
 *
 * @module
 */

/** @type {Record<string, string>} */
const SENTENCES = {
  // Before a stream (contract, section 8).
  invalid_request: "The gateway did not understand the question.",
  bad_cursor: "The gateway could not find the place where the answer broke off.",
  unauthorized: "The gateway wants a key, or the one it was given is no longer valid.",
  forbidden: "The gateway does not allow this here.",
  not_found: "This conversation is no longer on the gateway. Asking again starts a new one.",
  method_not_allowed: "Something between this page and the gateway changed the request.",
  request_timeout: "The question took too long to reach the gateway.",
  not_acceptable: "Something between this page and the gateway changed the request.",
  payload_too_large: "The question is too long for the gateway.",
  uri_too_long: "The question is too long for EventSource, which has to put it into the address.",
  unsupported_media_type: "Something between this page and the gateway changed the request.",
  headers_too_large: "The browser sent more headers than the gateway takes.",
  idempotency_conflict: "The gateway took this for another question. Please ask again.",
  conversation_busy: "Another answer in this conversation is still being written.",
  rate_limited: "A limit on how much may be asked is reached.",
  overloaded: "The gateway is busy.",
  draining: "The gateway is being restarted.",

  // In a stream.
  upstream_unavailable: "The model could not be reached.",
  upstream_rate_limited: "The model is asked too much right now.",
  upstream_timeout: "The model did not begin to answer in time.",
  upstream_stalled: "The model stopped in the middle of its answer.",
  upstream_broken: "The model's answer broke off.",
  worker_lost: "The server that wrote this answer went down.",
  upstream_auth: "The model refuses the gateway's key. Whoever runs the gateway has to mend that.",
  upstream_rejected: "The model refuses this question as it was put.",
  run_timeout: "The answer took longer than the gateway allows.",
  too_many_iterations: "The model used its tools again and again without coming to an answer.",
  answer_too_large: "The answer grew larger than the gateway allows.",
  internal: "Something went wrong in the gateway.",
  cancelled: "The answer was stopped.",

  // What the page itself notices.
  http_500: "Something went wrong in the gateway.",
  http_502: "The gateway cannot be reached behind its proxy.",
  http_503: "The gateway is busy.",
  http_504: "The gateway did not answer its proxy in time.",
  unreachable: "The gateway cannot be reached.",
  connection_lost: "The connection was lost.",
  silent: "The connection went silent.",
  run_gone: "The gateway no longer has this answer, so the rest of it is lost.",
  nothing_left: "The gateway has nothing more of this answer, yet its end never came.",
  not_a_stream: "Something other than the gateway answered, perhaps a proxy or a sign-in page.",
  bad_stream: "What came was not readable as an answer of the gateway.",
  bad_key: "This is no key: it holds spaces, or letters that no key has.",
  stop_unconfirmed:
    "The gateway did not confirm the stop. Without a listener it ends the answer within a minute.",
  eventsource_closed:
    "The gateway did not accept this, and EventSource does not tell why. Asking without it does.",
};

/**
 * @param {string} code
 * @param {string} [detail] the server's words, for codes that are not in the table
 */
export function sentence(code, detail) {
  if (Object.hasOwn(SENTENCES, code)) return /** @type {string} */ (SENTENCES[code]);
  return detail || `Something went wrong (${code}).`;
}

const RECONNECTING = new Set(["connection_lost", "silent", "unreachable"]);

/**
 * "Connection lost, reconnecting in 2 s…"
 *
 * @param {{ code: string, delayMs?: number }} wait
 */
export function waiting({ code, delayMs }) {
  const what = sentence(code).replace(/\.$/, "");
  const doing = RECONNECTING.has(code) ? "reconnecting" : "trying again";
  const when = delayMs === undefined ? "" : ` in ${Math.max(1, Math.round(delayMs / 1000))} s`;
  return `${what}, ${doing}${when}…`;
}

/**
 * What to say when the page does not try any more.
 *
 * @param {{ code: string, detail?: string, retryAfterMs?: number }} error
 */
export function givingUp({ code, detail, retryAfterMs }) {
  // The server knows which limit it is.
  const what = code === "rate_limited" && detail ? detail : sentence(code, detail);
  if (code === "conversation_busy") return `${what} A new chat does not have to wait for it.`;
  return retryAfterMs ? `${what} Please wait ${duration(retryAfterMs)}.` : what;
}

/**
 * Why somebody is not signed in.
 *
 * @param {{ code: string, detail?: string, retryAfterMs?: number, status?: number }} error
 */
export function refusal(error) {
  if (error.status !== 401) return givingUp(error);
  return "The gateway does not accept this key. It may be mistyped, expired or revoked.";
}

/** @param {number} ms */
function duration(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return seconds === 1 ? "1 second" : `${seconds} seconds`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} minutes` : `${Math.ceil(minutes / 60)} hours`;
}

/** Why the model ended, where that is not simply the end of its answer. @param {string} reason */
export function finish(reason) {
  if (reason === "length") return "The answer was cut at its length limit.";
  if (reason === "content_filter") return "The model's filter cut the answer.";
  return "";
}
