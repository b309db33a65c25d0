/** The Compare tab: two models or versions on the same picture. @module */

import { predict } from "../lib/api.js";
import { put } from "../lib/canvas.js";
import { element, fill, make } from "../lib/dom.js";
import { nameOf, percent, sentence } from "../lib/format.js";
import { decode, looksOf, mainOf, outsideOf, showClasses, wordsOf } from "./prediction.js";

/** @typedef {import("../types.js").ModelInfo} ModelInfo */
/** @typedef {import("../types.js").Size} Size */

/**
 * Fill a select element with models.
 * @param {HTMLSelectElement} select
 * @param {ModelInfo[]} models
 */
export function offer(select, models) {
  const before = select.value;
  select.replaceChildren(...models.map((model) => new Option(nameOf(model), nameOf(model))));
  if (models.some((model) => nameOf(model) === before)) select.value = before;
}

/** One side of the comparison. */
class Side {
  /** @param {string} name for screen readers */
  constructor(name) {
    this.select = document.createElement("select");
    this.rectified = document.createElement("canvas");
    this.rectified.className = "pixels";
    this.rectified.setAttribute("role", "img");
    this.rectified.setAttribute("aria-label", `Rectified image of the ${name} model`);
    this.words = make("p", "", "words");
    this.classes = make("ol", "", "classes");
    this.facts = make("dl", "", "facts");
    this.section = make("section", "", `side side-${name}`);
    const label = make("label", `${sentence(name)} model `, "model");
    label.append(this.select);
    this.section.setAttribute("aria-label", `${sentence(name)} model`);
    this.section.append(label, this.rectified, this.classes, this.words, this.facts);
  }
}

export class CompareView {
  /** @param {() => void} onChoice */
  constructor(onChoice) {
    /** @type {ModelInfo[]} */
    this.models = [];
    this.sides = [new Side("first"), new Side("second")];
    element("versus", HTMLElement).append(...this.sides.map(({ section }) => section));
    for (const { select } of this.sides) select.addEventListener("change", onChoice);
  }

  /** @param {ModelInfo[]} models */
  offer(models) {
    this.models = models;
    for (const { select } of this.sides) offer(select, models);
  }

  /**
   * Compare `model` with another version of it, or else with another model.
   * @param {ModelInfo} model
   */
  begin(model) {
    const others = this.models.filter((other) => nameOf(other) !== nameOf(model));
    const other = others.find(({ name }) => name === model.name) ?? others[0] ?? model;
    [model, other].forEach((chosen, index) => (this.sides[index].select.value = nameOf(chosen)));
  }

  /**
   * Request both predictions, one after the other, and show them.
   * @param {Uint8Array} picture
   * @param {Size} size of it
   * @returns {Promise<ReturnType<typeof looksOf>>} where they looked
   */
  async look(picture, size) {
    const seen = [];
    for (const { select, ...side } of this.sides) {
      const model = this.models.find((candidate) => nameOf(candidate) === select.value);
      if (model === undefined) continue;
      const { answer, roundTrip } = await predict(model, picture);
      const looks = looksOf(answer, model.transforms[0]?.kind);
      const main = mainOf(answer, looks);
      put(side.rectified, await decode(main.look));
      showClasses(side.classes, answer.predictions);
      side.words.textContent = sentence(wordsOf(main.look, size));
      fill(side.facts, [
        ["outside the picture", percent(outsideOf(main, size))],
        ["inference", `${answer.timings_ms.inference.toFixed(2)} ms`],
        ["round trip", `${roundTrip.toFixed(1)} ms`],
        ["test accuracy", model.accuracy === null ? "not measured" : percent(model.accuracy.accuracy)],
      ]);
      seen.push(main);
    }
    return seen;
  }
}
