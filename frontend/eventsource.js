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
import { GRACE_SECONDS } from "./gateway.js";
import { newKey } from "./link.js";

const EVENTS = ["start", "token", "retract", "final"];

export class EventSourceRun {
  #url;
  #runUrl = /** @type {URL | null} */ (null);
  #stopping = false;

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
    const source = new EventSource(this.#url);
    const over = new Promise((resolve, reject) => {
      for (const type of EVENTS) {
        source.addEventListener(type, (event) => show({ type, ...JSON.parse(event.data) }));
      }
      source.addEventListener("start", (event) => {
        this.#runUrl = new URL(`runs/${JSON.parse(event.data).run_id}`, this.#url);
        if (this.#stopping) this.stop();
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
    return over.finally(() => source.close());
  }

  /** Ends the run on the server, as soon as its id is known; `done` then comes on the stream. */
  stop() {
    this.#stopping = true;
    if (this.#runUrl) void fetch(this.#runUrl, { method: "DELETE" }).catch(() => {});
  }
}
