/** The Look tab: shows a prediction. @module */

import { put } from "../lib/canvas.js";
import { element, fill, make } from "../lib/dom.js";
import { percent, sentence, signed } from "../lib/format.js";
import { inWords, outline, outsideShare, takeApart } from "../lib/geometry.js";

/** @typedef {import("../types.js").Answer} Answer */
/** @typedef {import("../types.js").Look} Look */
/** @typedef {import("../types.js").Size} Size */

const BENT = new Set(["tps", "projective"]);
/** Kinds of transformers that theta describes only in part. */

/** @typedef {{look: Look, bends: boolean, name: string}} Seen */

/**
 * The outputs of the transformers; the one whose image is classified comes last. Those of a sequence keep its order.
 * @param {Answer} answer
 * @returns {Seen[]}
 */
export function looksOf(answer, kind = "affine") {
  const all = answer.transforms ?? [{ ...answer, name: "", kind }];
  const looks = all.map((look) => ({ look, bends: BENT.has(look.kind), name: look.name }));
  if (answer.sequence) return looks;
  const main = mainOf(answer, looks);
  return [...looks.filter((look) => look !== main), main];
}

/**
 * The one whose image the answer has; of a sequence, that of the first object.
 * @param {Answer} answer
 * @param {Seen[]} looks
 */
export const mainOf = (answer, looks) =>
  looks.find(({ look }) => String(look.theta) === String(answer.theta)) ?? looks[looks.length - 1];

/**
 * Whether each object of a sequence has a crop of its own.
 * @param {Answer} answer
 */
export const showsEach = ({ sequence, transforms }) => sequence !== undefined && sequence.length === transforms?.length;

/**
 * Decode the rectified image.
 * @param {Look} look
 * @returns {Promise<ImageBitmap>}
 */
export async function decode({ rectified }) {
  const bytes = Uint8Array.from(atob(rectified.data), (character) => character.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: `image/${rectified.format}` }));
}

/**
 * Show classes as bars. Rows are updated in place, so that nothing flickers.
 * @param {HTMLElement} list
 * @param {import("../types.js").ClassPrediction[]} predictions
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
 * Describe the sampled region in words.
 * @param {Look} look
 * @param {Size} size of the picture
 */
export const wordsOf = (look, size) =>
  look.kind === "none" ? "the whole picture, without a transformer" : inWords(takeApart(look.theta, size));

/**
 * The share of the sampled region that lies outside the picture.
 * @param {{look: Look, bends: boolean}} seen
 * @param {Size} size
 */
export const outsideOf = ({ look, bends }, size) =>
  outsideShare(bends && look.points ? outline(look.points) : look.corners, size);

export class PredictionView {
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
   * @param {Seen[]} looks of `looksOf`
   * @param {ImageBitmap} image the rectified one
   * @param {Size} size of the picture
   * @param {number} roundTrip milliseconds
   * @param {number} rate answers a second
   */
  show(answer, looks, image, size, roundTrip, rate) {
    put(this.rectified, image);
    showClasses(this.classes, answer.predictions);
    const main = mainOf(answer, looks);
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

