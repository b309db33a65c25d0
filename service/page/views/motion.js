/** Mean and variance of the moving picture and of its rectified image. @module */

import { contextOf } from "../lib/canvas.js";
import { element } from "../lib/dom.js";

/** Running mean and variance of each value over frames (Welford 1962). */
export class Spread {
  constructor() {
    this.count = 0;
    this.mean = new Float64Array(0);
    this.squares = new Float64Array(0);
  }

  /** @param {ArrayLike<number>} values another number of values than before resets the statistics */
  add(values) {
    if (values.length !== this.mean.length) {
      this.count = 0;
      this.mean = new Float64Array(values.length);
      this.squares = new Float64Array(values.length);
    }
    this.count += 1;
    for (let index = 0; index < values.length; index++) {
      const difference = values[index] - this.mean[index];
      this.mean[index] += difference / this.count;
      this.squares[index] += difference * (values[index] - this.mean[index]);
    }
  }

  /** The mean variance over the frame; 0 before the second frame. */
  variance() {
    if (this.count < 2) return 0;
    return this.squares.reduce((sum, value) => sum + value, 0) / (this.count - 1) / this.squares.length;
  }
}

/**
 * The colours of a frame without alpha, which never varies.
 * @param {ImageData} image
 * @returns {Uint8ClampedArray}
 */
export function colours({ data }) {
  const kept = new Uint8ClampedArray((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    kept[to++] = data[from];
    kept[to++] = data[from + 1];
    kept[to++] = data[from + 2];
  }
  return kept;
}

export class MotionView {
  constructor() {
    this.section = element("motion", HTMLElement);
    this.canvases = {
      input: element("mean-input", HTMLCanvasElement),
      rectified: element("mean-rectified", HTMLCanvasElement),
    };
    this.input = new Spread();
    this.rectified = new Spread();
  }

  /** Reset the statistics. */
  begin() {
    this.input = new Spread();
    this.rectified = new Spread();
  }

  /**
   * @param {ImageData} input what was looked at
   * @param {ImageData} rectified what the network made of it
   */
  add(input, rectified) {
    this.input.add(colours(input));
    this.rectified.add(colours(rectified));
    this.section.hidden = false;
    draw(this.canvases.input, this.input.mean, input);
    draw(this.canvases.rectified, this.rectified.mean, rectified);
    const [before, after] = [this.input.variance(), this.rectified.variance()];
    element("frames", HTMLElement).textContent = `${this.input.count} frames`;
    element("variance-input", HTMLElement).textContent = `variance ${before.toFixed(0)}`;
    element("variance-rectified", HTMLElement).textContent = `variance ${after.toFixed(0)}`;
    element("steadiness", HTMLElement).textContent =
      before > 0 ? `The rectified image varies ${(after / before).toFixed(2)} times as much as the picture.` : "";
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float64Array} mean three values a pixel
 * @param {{width: number, height: number}} size
 */
function draw(canvas, mean, { width, height }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < mean.length; to += 4) {
    image.data[to] = mean[from++];
    image.data[to + 1] = mean[from++];
    image.data[to + 2] = mean[from++];
    image.data[to + 3] = 255;
  }
  contextOf(canvas).putImageData(image, 0, 0);
}
