/** The error banner, and the dialog that asks for an API key. @module */

import { Problem, storeKey } from "../lib/api.js";
import { element } from "../lib/dom.js";

export class ErrorBanner {
  /** @param {() => void} onKey called when the user has entered a key */
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
   * Show what happened and what to do.
   * @param {unknown} error
   * @param {() => void} [again] retry for errors that may pass
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

  /** Hide an error of the service once it answers again. An error about a file stays. */
  answered() {
    if (this.ofService && !this.box.hidden) this.hide();
  }

  hide() {
    this.box.hidden = true;
  }
}
