/** The third tab: what the service does. @module */

import { element, fill, make, percent } from "./answer.js";
import { ask, listModels, Problem } from "./api.js";
import { nameOf } from "./compare.js";

const EVERY_MS = 2000;

export class ServerView {
  /** @param {(error: unknown) => void} onProblem */
  constructor(onProblem) {
    this.onProblem = onProblem;
    this.facts = element("server-facts", HTMLDListElement);
    this.note = element("server-note", HTMLParagraphElement);
    this.rows = element("model-table", HTMLTableElement).tBodies[0];
    this.timer = 0;
  }

  /** Begin or cease to look, as the tab is shown or not. */
  watch(/** @type {boolean} */ shown) {
    clearTimeout(this.timer);
    this.timer = 0;
    if (shown) void this.look();
  }

  async look() {
    const timer = (this.timer = window.setTimeout(() => void this.look(), EVERY_MS));
    try {
      const [models, state] = await Promise.all([listModels(), readyState()]);
      if (timer !== this.timer) return;
      fill(this.facts, [["state", state], ["models", String(models.length)]]);
      this.rows.replaceChildren(...models.map((model) => this.row(model)));
    } catch (error) {
      this.onProblem(error);
    }
  }

  /** @param {import("./types.js").ModelInfo} model */
  row(model) {
    const { width, height, channels } = model.input;
    const row = document.createElement("tr");
    const cells = [
      model.runtime,
      model.device,
      `${width}×${height} ${channels === 1 ? "grey" : "RGB"}`,
      `${percent(model.accuracy.accuracy)} of ${model.accuracy.pictures.toLocaleString("en")}`,
    ];
    const head = make("th", nameOf(model));
    head.setAttribute("scope", "row");
    row.append(head, ...cells.map((text) => make("td", text)));
    return row;
  }
}

/** @returns {Promise<string>} */
async function readyState() {
  try {
    await ask("health/ready");
    return "ready";
  } catch (error) {
    if (error instanceof Problem && error.status === 503) return "not ready";
    throw error;
  }
}
