// @ts-check
/**
 * Time: how long to wait, waiting that can be cut short, and noticing silence.
 *
 * @module
 */

/** No wait of ours is longer (ms). */
const LONGEST_DELAY_MS = 15_000;
/** Attempts without news; they last about a minute, which is as long as a run waits for us. */
const MAX_ATTEMPTS = 8;
/** A server that asks to wait longer than this (ms) leaves it to the user. */
const LONGEST_RETRY_AFTER_MS = 30_000;

/**
 * Whether to try again unasked; else it is the user's turn.
 *
 * @param {number} attempt the one that failed, from 1
 * @param {number} delayMs
 */
export const patient = (attempt, delayMs) =>
  attempt < MAX_ATTEMPTS && delayMs <= LONGEST_RETRY_AFTER_MS;

/**
 * Exponential, with jitter in the upper half: readers that a restart cut together do not come
 * back together, and the words "in 2 s" stay about true.
 *
 * @param {number} attempt from 1
 * @param {number} firstMs
 */
export function backoff(attempt, firstMs) {
  const most = Math.min(LONGEST_DELAY_MS, firstMs * 2 ** (attempt - 1));
  return most * (0.5 + Math.random() / 2);
}

/**
 * Waits. An abort of `hurry` ends the wait early, one of `signal` throws its reason.
 *
 * @param {number} ms
 * @param {AbortSignal} signal
 * @param {AbortSignal} [hurry]
 * @returns {Promise<void>}
 */
export async function sleep(ms, signal, hurry) {
  const over = new AbortController();
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    over.signal.addEventListener("abort", () => clearTimeout(timer));
    for (const early of hurry ? [signal, hurry] : [signal]) {
      if (early.aborted) resolve(undefined);
      early.addEventListener("abort", resolve, { signal: over.signal });
    }
  });
  over.abort(); // takes the timer and the listeners away
  signal.throwIfAborted();
}

/** Aborts its `signal` when nobody has called `fed` for the time it was last given. */
export class Watchdog {
  #bark = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  get signal() {
    return this.#bark.signal;
  }

  /** @param {number} ms */
  fed(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#bark.abort(), ms);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
