/**
 * A run of the page's client, and what it tells.
 */
import { GatewayError } from "../../frontend/events.js";
import { Run } from "../../frontend/gateway.js";

export const BOUND = { timeout: 10_000 };

/** @param {string} base */
export const ask = (base) => new Run({ text: "hi", base }, { firstDelayMs: 5 });

/** @param {Run} run @param {(event: any) => void} [seen] */
export async function all(run, seen = () => {}) {
  const events = [];
  for await (const event of run.follow()) {
    events.push(event);
    seen(event);
  }
  return events;
}

/** What was shown, in order; `open` left out. @param {any[]} events */
export const shown = (events) =>
  events
    .filter(({ type }) => type !== "open")
    .map(({ type, text, code, status }) => [type, text ?? code ?? status])
    .map((words) => words.filter(Boolean).join(" "));

/** @param {string} code @returns {(error: unknown) => boolean} */
export const withCode = (code) => (error) => error instanceof GatewayError && error.code === code;

export const ANSWER = ["start", "token Hel", "token lo", "final Hello", "done completed"];
