// @ts-check
/**
 * The form that asks for a key. What is typed there goes to `POST /session` and nowhere else: the
 * field has no name, so no form can send it, and it is emptied before the answer comes.
 *
 * @module
 */
import { GatewayError } from "./events.js";
import { signIn } from "./session.js";
import { find } from "./view.js";
import { refusal } from "./words.js";

/** @import { Session } from "./session.js" */

export class SignIn {
  #section = find("sign-in", HTMLElement);
  #key = find("key", HTMLInputElement);
  #problem = find("key-problem", HTMLElement);
  #signedIn;

  /** @param {(session: Session) => void} signedIn */
  constructor(signedIn) {
    this.#signedIn = signedIn;
    find("key-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
  }

  get isOpen() {
    return !this.#section.hidden;
  }

  open() {
    this.#section.hidden = false;
  }

  focus() {
    this.#key.focus();
  }

  async #submit() {
    const key = this.#key.value.trim();
    this.#key.value = "";
    this.#complain("");
    try {
      const session = await signIn(key);
      this.#section.hidden = true;
      this.#signedIn(session);
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error; // a bug of the page
      this.#complain(refusal(error));
      this.#key.focus();
    }
  }

  /** @param {string} words empty: nothing is wrong */
  #complain(words) {
    this.#problem.textContent = words;
    this.#key.ariaInvalid = words ? "true" : null;
  }
}
