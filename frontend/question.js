// @ts-check
/**
 * What is posted to get an answer, and again to get another one instead of an answer that failed.
 *
 * Another answer is asked for where the conversation has the question by then, and else the
 * question once more: a server may go down before it has stored it. The key is always the same, so
 * that there is no second answer should the first one live after all.
 *
 * @module
 */
import { GatewayError } from "./events.js";
import { findAnswer, newKey } from "./link.js";

/** How long a run lives on without a reader (s): time for a tunnel or a change of network. */
export const GRACE_SECONDS = 60;
/** How often a run that failed before it began is asked for again. */
const MAX_REPEATS = 2;

export class Question {
  #base;
  #auth;
  #path = "chat";
  #body;
  #key = newKey();
  #failedRun = "";
  repeats = 0;

  /**
   * @param {string | URL} base
   * @param {string} text
   * @param {string} conversationId empty: none
   * @param {Record<string, string>} auth the header that shows a key, if there is one
   */
  constructor(base, text, conversationId, auth) {
    this.#base = base;
    this.#auth = auth;
    const conversation_id = conversationId || undefined; // JSON leaves it out
    // Kept as sent: the same key with another body is refused.
    this.#body = JSON.stringify({ text, grace_seconds: GRACE_SECONDS, conversation_id });
  }

  get mayRepeat() {
    return this.repeats < MAX_REPEATS;
  }

  /** Ask again; how, `request` finds out. @param {string} failedRun */
  repeat(failedRun) {
    this.repeats += 1;
    if (this.#path === "chat") this.#failedRun = failedRun;
  }

  /**
   * @param {string} conversationId where it stands by now; empty: not known
   * @param {AbortSignal} signal
   * @returns {Promise<[URL, RequestInit]>}
   * @throws {GatewayError} or the signal's reason
   */
  async request(conversationId, signal) {
    if (this.#failedRun && conversationId) await this.#find(conversationId, signal);
    this.#failedRun = "";
    const json = { "Content-Type": "application/json", "Idempotency-Key": this.#key };
    const headers = { ...this.#auth, ...json };
    return [new URL(this.#path, this.#base), { method: "POST", headers, body: this.#body }];
  }

  /** @param {string} conversationId @param {AbortSignal} signal */
  async #find(conversationId, signal) {
    const path = `conversations/${encodeURIComponent(conversationId)}`;
    const url = new URL(path, this.#base);
    const answer = await findAnswer(url, this.#failedRun, signal, this.#auth);
    if (!answer) return;
    // It said or did something that we did not see.
    const { status, tool_calls } = answer;
    if (!["running", "failed"].includes(status) || tool_calls.length > 0) {
      throw new GatewayError("run_gone");
    }
    this.#path = `${path}/regenerate`;
    const body = { grace_seconds: GRACE_SECONDS, parent_message_id: answer.id };
    this.#body = JSON.stringify(body);
  }
}
