/** The stage: a canvas of the model's input size on which the user places the picture. @module */

import { contextOf, sizeOf } from "../lib/canvas.js";
import { addNoise, pieces } from "./noise.js";
import { matrix } from "./placement.js";

const SEED = 1;
/** Seed of clutter and noise, which stay fixed while the picture moves. */
const QUALITY = 0.95;

/** @typedef {import("../types.js").Picture} Picture */
/** @typedef {import("../types.js").Size} Size */

export class Stage {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = contextOf(canvas);
    this.grey = true;
  }

  /**
   * Adopt the input size of a model.
   * @param {{width: number, height: number, channels: number}} input
   */
  fit(input) {
    this.canvas.width = input.width;
    this.canvas.height = input.height;
    this.grey = input.channels === 1;
  }

  /**
   * Draw `picture` at `placement`. The rest is black, as the network sees it.
   * @param {Picture} picture
   * @param {import("../types.js").Placement} placement
   * @param {import("../types.js").Disturbance} disturbance
   */
  draw(picture, placement, disturbance) {
    const { context, canvas } = this;
    const size = sizeOf(picture.source);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.setTransform(...matrix(placement, size, canvas));
    context.drawImage(picture.source, 0, 0, size.width, size.height);
    if (disturbance.invert) {
      context.globalCompositeOperation = "difference";
      context.fillStyle = "#fff";
      context.fillRect(0, 0, size.width, size.height);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.strew(picture, size, disturbance);
    if (disturbance.noise > 0) {
      const frame = this.pixels();
      addNoise(frame.data, (disturbance.noise / 100) * 128, SEED);
      context.putImageData(frame, 0, 0);
    }
  }

  /**
   * Draw clutter from pieces of the picture; only their light parts cover a black background.
   * @param {Picture} picture
   * @param {Size} size
   * @param {import("../types.js").Disturbance} disturbance
   */
  strew(picture, size, disturbance) {
    const { context, canvas } = this;
    context.globalCompositeOperation = this.grey ? "lighten" : "source-over";
    for (const { from, to, side } of pieces(disturbance.clutter, SEED)) {
      context.drawImage(
        picture.source,
        from[0] * size.width,
        from[1] * size.height,
        side * size.width,
        side * size.height,
        to[0] * canvas.width,
        to[1] * canvas.height,
        side * canvas.width,
        side * canvas.height,
      );
    }
    context.globalCompositeOperation = "source-over";
  }

  /** @returns {ImageData} */
  pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /**
   * Encode the stage as it is now.
   * @param {"image/png" | "image/jpeg"} type
   * @returns {Promise<Blob>}
   */
  encode(type) {
    return new Promise((resolve, reject) => {
      const pass = (/** @type {Blob | null} */ blob) => (blob ? resolve(blob) : reject(new Error(`no ${type}`)));
      this.canvas.toBlob(pass, type, QUALITY);
    });
  }
}
