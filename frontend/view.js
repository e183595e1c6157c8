// @ts-check
/**
 * The conversation on the page. Text reaches the DOM as text nodes only, never as HTML.
 *
 * @module
 */

/** Distance from the bottom (px) within which the reader is taken to follow the answer. */
const NEAR_PX = 96;

/** A question and its answer. */
export class Turn {
  #article = element("article", "answer");
  #name = element("h2", "", "Answer");
  #text = element("div", "text");
  #notes = element("div", "notes");
  #pending = "";
  #frame = 0;

  /**
   * @param {HTMLElement} log
   * @param {string} question
   */
  constructor(log, question) {
    const asked = element("article", "question");
    this.#text.dir = "auto"; // right to left, if its text is
    asked.append(element("h2", "", "You"), element("div", "text", question));
    this.#article.append(this.#name, this.#text, this.#notes);
    log.append(asked, this.#article);
    this.busy = true;
    toBottom();
  }

  /** @param {boolean} value */
  set busy(value) {
    this.#article.classList.toggle("busy", value);
  }

  /** @param {string} model */
  set model(model) {
    this.#name.textContent = model;
  }

  /**
   * One text node a frame: setting the whole text for each token would be quadratic.
   *
   * @param {string} text
   */
  append(text) {
    this.#pending += text;
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** Takes back what was appended last. @param {string} text */
  retract(text) {
    this.#flush();
    let left = text.length;
    while (left > 0 && this.#text.lastChild instanceof Text) {
      const node = this.#text.lastChild;
      const cut = Math.min(left, node.length);
      node.deleteData(node.length - cut, cut);
      if (node.length === 0) node.remove();
      left -= cut;
    }
  }

  /**
   * The whole text, as the gateway knows it: what was appended should be the same.
   *
   * @param {string} text
   */
  settle(text) {
    this.#flush();
    if (this.#text.textContent !== text) this.#text.textContent = text;
  }

  /**
   * A remark below the answer.
   *
   * @param {string} words
   * @param {{ label: string, act: () => boolean }} [button] once it could act, the remark goes
   * @returns {HTMLElement | null} the button
   */
  note(words, button) {
    this.#flush();
    const following = nearBottom();
    const note = element("p", "note", words);
    const pressed = button ? element("button", "", button.label) : null;
    if (pressed) {
      pressed.addEventListener("click", () => {
        if (button?.act()) note.remove();
      });
      note.append(" ", pressed);
    }
    this.#notes.append(note);
    if (following) toBottom();
    return pressed;
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#pending === "") return;
    const following = nearBottom();
    this.#text.append(this.#pending);
    this.#pending = "";
    if (following) toBottom();
  }
}

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} [text]
 */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function nearBottom() {
  const page = document.documentElement;
  return page.scrollHeight - page.clientHeight - page.scrollTop < NEAR_PX;
}

export function toBottom() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

/**
 * The element of that id in `index.html`.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function find(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new TypeError(`#${id} is missing`);
  return found;
}
