/** An answer as a person reads it. @module */

import { inWords, outline, outsideShare, takeApart } from "./looking.js";
import { contextOf } from "./stage.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").Look} Look */
/** @typedef {import("./types.js").Size} Size */

const BENT = new Set(["tps", "projective"]);
/** Kinds of transformers that theta does not say all of. */

/**
 * The element of that id.
 * @template {Element} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

/**
 * A new element with text.
 * @param {string} tag
 * @param {string} [text]
 * @param {string} [className]
 * @returns {HTMLElement}
 */
export function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/**
 * What an answer's transformers did, the one whose image is classified last.
 * @param {Answer} answer
 * @returns {{look: Look, bends: boolean, name: string}[]}
 */
export function looksOf(answer, kind = "affine") {
  const all = answer.transforms ?? [{ ...answer, name: "", kind }];
  const looks = all.map((look) => ({ look, bends: BENT.has(look.kind), name: look.name }));
  const main = looks.find(({ look }) => String(look.theta) === String(answer.theta));
  return main ? [...looks.filter((look) => look !== main), main] : looks;
}

/**
 * The rectified image, decoded.
 * @param {Look} look
 * @returns {Promise<ImageBitmap>}
 */
export async function decode({ rectified }) {
  const bytes = Uint8Array.from(atob(rectified.data), (character) => character.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: `image/${rectified.format}` }));
}

/**
 * Put an image on a canvas of its size, which the style sheet makes large.
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} image
 */
export function put(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  contextOf(canvas).drawImage(image, 0, 0);
}

/**
 * Classes as bars. Rows stay where they are and change, so that nothing flickers.
 * @param {HTMLElement} list
 * @param {import("./types.js").ClassPrediction[]} predictions
 */
export function showClasses(list, predictions) {
  while (list.children.length < predictions.length) {
    const row = make("li");
    const bar = make("span", "", "bar");
    bar.append(make("i"));
    row.append(make("span", "", "label"), bar, make("span", "", "probability"));
    list.append(row);
  }
  while (list.children.length > predictions.length) list.lastElementChild?.remove();
  predictions.forEach(({ label, probability }, index) => {
    const [name, bar, value] = list.children[index].children;
    if (name.textContent !== label) name.textContent = label;
    value.textContent = percent(probability);
    if (bar.firstElementChild instanceof HTMLElement) bar.firstElementChild.style.transform = `scaleX(${probability})`;
  });
}

/**
 * With a minus that is as wide as a plus, and none before a zero.
 * @param {number} value
 * @param {number} digits after the point
 */
export function signed(value, digits = 0) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** @param {number} share from 0 to 1 */
export const percent = (share) => `${(share * 100).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

/**
 * Where a network looked, in words.
 * @param {Look} look
 * @param {Size} size of the picture
 */
export const wordsOf = (look, size) => inWords(takeApart(look.theta, size));

/**
 * The share of what it looked at that lies outside of the picture.
 * @param {{look: Look, bends: boolean}} seen
 * @param {Size} size
 */
export const outsideOf = ({ look, bends }, size) =>
  outsideShare(bends && look.points ? outline(look.points) : look.corners, size);

export class AnswerView {
  constructor() {
    this.rectified = element("rectified", HTMLCanvasElement);
    this.classes = element("classes", HTMLOListElement);
    this.words = element("words", HTMLParagraphElement);
    this.outside = element("outside", HTMLElement);
    this.looks = element("looks", HTMLOListElement);
    this.cells = [...element("theta", HTMLTableElement).querySelectorAll("td")];
    this.times = element("times", HTMLDListElement);
    this.parts = [...element("times-bar", HTMLElement).children];
  }

  /**
   * @param {Answer} answer
   * @param {{look: Look, bends: boolean, name: string}[]} looks of `looksOf`
   * @param {ImageBitmap} image the rectified one
   * @param {Size} size of the picture
   * @param {number} roundTrip milliseconds
   * @param {number} rate answers a second
   */
  show(answer, looks, image, size, roundTrip, rate) {
    put(this.rectified, image);
    showClasses(this.classes, answer.predictions);
    const main = looks[looks.length - 1];
    this.words.textContent = sentence(wordsOf(main.look, size));
    answer.theta.flat().forEach((value, index) => {
      this.cells[index].textContent = signed(value, 3);
    });
    this.outside.textContent = percent(outsideOf(main, size));
    this.looks.hidden = looks.length === 1;
    this.looks.replaceChildren(
      ...looks.map(({ look, name }, index) => make("li", `${name}: ${wordsOf(look, size)}`, `look-${index % 4}`)),
    );
    this.showTimes(answer, roundTrip, rate);
  }

  /**
   * @param {Answer} answer
   * @param {number} roundTrip
   * @param {number} rate
   */
  showTimes(answer, roundTrip, rate) {
    const { decode, queue, inference, encode, total } = answer.timings_ms;
    const rest = Math.max(0, roundTrip - decode - queue - inference - encode);
    [decode, queue, inference, encode, rest].forEach((part, index) => {
      const bar = this.parts[index];
      if (bar instanceof HTMLElement) bar.style.flexGrow = String(part);
    });
    const ms = (/** @type {number} */ value) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;
    fill(this.times, [
      ["decode", ms(decode)],
      ["queue", ms(queue)],
      ["inference", ms(inference)],
      ["encode", ms(encode)],
      ["total", ms(total)],
      ["round trip", ms(roundTrip)],
      ["batch", String(answer.batch_size)],
      ["answers", rate > 0 ? `${rate.toFixed(0)} /s` : "–"],
    ]);
  }
}

/** @param {string} text */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * Terms and what they are; those that are there already change.
 * @param {HTMLElement} list
 * @param {[string, string][]} facts
 */
export function fill(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  facts.forEach(([term, value], index) => {
    let row = list.children[index];
    if (row === undefined) {
      row = make("div");
      row.append(make("dt"), make("dd"));
      list.append(row);
    }
    if (row.children[0].textContent !== term) row.children[0].textContent = term;
    if (row.children[1].textContent !== value) row.children[1].textContent = value;
  });
}
