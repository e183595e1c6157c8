// @ts-check
/**
 * The same chat through the browser's own `EventSource`: the shortest client there is.
 *
 * An example to read. The browser reconnects by itself and sends `Last-Event-ID`, and the gateway
 * goes on behind that event. In exchange it can only GET, so that the question stands in the
 * address, and it does not tell an HTTP status nor see heartbeats. `gateway.js` does the rest.
 *
 * @module
 */
import { GatewayError } from "./events.js";
import { newKey } from "./link.js";
import { GRACE_SECONDS } from "./question.js";

/** The gateway's server reads no longer address; with room for what a proxy adds. */
const MAX_URL_LENGTH = 60_000;
/** How long a stop may stay unconfirmed, and when a failed one is sent again (ms). */
const STOP_MS = 15_000;
const AGAIN_MS = 1_000;

const EVENTS = ["start", "token", "retract", "final"];

export class EventSourceRun {
  #url;
  #runUrl = /** @type {URL | null} */ (null);
  #stopping = false;
  #over = false;
  #giveUp = (/** @type {GatewayError} */ _reason) => {};

  /** @param {{ text: string, conversationId?: string | null, base?: string | URL }} question */
  constructor({ text, conversationId, base = import.meta.url }) {
    this.#url = new URL("chat", base);
    const query = this.#url.searchParams;
    query.set("text", text);
    query.set("grace_seconds", String(GRACE_SECONDS));
    query.set("idempotency_key", newKey()); // a reconnect before the first id joins the same run
    if (conversationId) query.set("conversation_id", conversationId);
  }

  /**
   * Shows the run's events until `done`.
   *
   * @param {(event: import("./events.js").RunEvent) => unknown} show
   * @returns {Promise<void>} rejects with `GatewayError` when the browser gives up
   */
  follow(show) {
    if (this.#url.href.length > MAX_URL_LENGTH) {
      return Promise.reject(new GatewayError("uri_too_long"));
    }
    const source = new EventSource(this.#url);
    const over = new Promise((resolve, reject) => {
      this.#giveUp = reject;
      for (const type of EVENTS) {
        source.addEventListener(type, (event) => show({ type, ...JSON.parse(event.data) }));
      }
      source.addEventListener("start", (event) => {
        this.#runUrl = new URL(`runs/${JSON.parse(event.data).run_id}`, this.#url);
        if (this.#stopping) void this.#delete();
      });
      source.addEventListener("open", () => show({ type: "open" }));

      // Two things share this name. An `error` event of the server has data; when the connection
      // fails the browser makes one without.
      source.addEventListener("error", (/** @type {MessageEvent | Event} */ event) => {
        if ("data" in event && event.data) {
          show({ type: "error", ...JSON.parse(event.data) });
        } else if (source.readyState === EventSource.CLOSED) {
          reject(new GatewayError("eventsource_closed")); // any status but 200 is for good
        } else {
          show({ type: "wait", code: "connection_lost" }); // the browser chooses when
        }
      });

      // Close, or the browser takes the end of the body for a lost connection and asks again.
      source.addEventListener("done", (event) => {
        source.close();
        show({ type: "done", ...JSON.parse(event.data) });
        resolve(undefined);
      });
    });
    return over.finally(() => {
      this.#over = true;
      source.close();
    });
  }

  /**
   * Ends the run on the server, as soon as its id is known; `done` then comes on the stream. When
   * it has not come in time, `follow` rejects, and the grace clock ends the run.
   */
  stop() {
    if (this.#stopping) return;
    this.#stopping = true;
    setTimeout(() => this.#giveUp(new GatewayError("stop_unconfirmed")), STOP_MS);
    if (this.#runUrl) void this.#delete();
  }

  async #delete() {
    while (!this.#over && this.#runUrl) {
      const response = await fetch(this.#runUrl, { method: "DELETE" }).catch(() => null);
      await response?.text().catch(() => ""); // read, or the connection stays taken
      if (response?.ok || response?.status === 404) return;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}
