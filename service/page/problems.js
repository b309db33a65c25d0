/** What went wrong, at the top of the page; and the key, if one is wanted. @module */

import { Problem, storeKey } from "./api.js";
import { element } from "./answer.js";

export class Problems {
  /** @param {() => void} onKey there is a new key: try again */
  constructor(onKey) {
    this.box = element("problem", HTMLDivElement);
    this.what = element("problem-what", HTMLElement);
    this.todo = element("problem-todo", HTMLElement);
    this.dialog = element("key", HTMLDialogElement);
    this.value = element("key-value", HTMLInputElement);
    this.timer = 0;
    this.ofService = false;
    element("problem-close", HTMLButtonElement).addEventListener("click", () => this.hide());
    element("key-cancel", HTMLButtonElement).addEventListener("click", () => this.dialog.close());
    element("key-form", HTMLFormElement).addEventListener("submit", () => {
      storeKey(this.value.value.trim());
      this.value.value = "";
      onKey();
    });
  }

  /**
   * Say what happened and what to do.
   * @param {unknown} error
   * @param {() => void} [again] what may help after a while
   */
  show(error, again) {
    if (!(error instanceof Problem)) throw error;
    this.ofService = error.status > 0 || error.retryMs > 0;
    if (this.what.textContent !== error.what || this.box.hidden) {
      this.what.textContent = error.what;
      this.todo.textContent = error.todo;
      this.box.hidden = false;
    }
    if (error.status === 401 && !this.dialog.open) this.dialog.showModal();
    if (again && error.retryMs > 0) {
      clearTimeout(this.timer);
      this.timer = window.setTimeout(again, error.retryMs);
    }
  }

  /** The service answers: what it said before holds no more. What was wrong with a file stays. */
  answered() {
    if (this.ofService && !this.box.hidden) this.hide();
  }

  hide() {
    this.box.hidden = true;
  }
}
