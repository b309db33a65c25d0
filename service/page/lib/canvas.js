/** Canvases: their contexts, sizes and contents. @module */

/** @typedef {import("../types.js").Picture} Picture */
/** @typedef {import("../types.js").Size} Size */

/**
 * The context of a canvas whose pixels are read often.
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function contextOf(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Error("this browser has no 2D canvas");
  return context;
}

/**
 * The size of a picture or video in pixels.
 * @param {Picture["source"]} source
 * @returns {Size}
 */
export function sizeOf(source) {
  return source instanceof HTMLVideoElement
    ? { width: source.videoWidth || 1, height: source.videoHeight || 1 }
    : { width: source.width, height: source.height };
}

/**
 * Copy to a canvas of at most the `largest` side. Halving step by step gives every source pixel its weight.
 * @param {ImageBitmap | HTMLVideoElement | HTMLCanvasElement} source
 * @param {number} largest
 * @returns {HTMLCanvasElement}
 */
export function shrink(source, largest) {
  let { width, height } = source instanceof HTMLVideoElement
    ? { width: source.videoWidth, height: source.videoHeight }
    : source;
  /** @type {ImageBitmap | HTMLVideoElement | HTMLCanvasElement} */
  let from = source;
  for (;;) {
    const scale = Math.max(0.5, Math.min(1, largest / Math.max(width, height)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = contextOf(canvas);
    context.imageSmoothingQuality = "high";
    context.drawImage(from, 0, 0, canvas.width, canvas.height);
    ({ width, height } = canvas);
    if (Math.max(width, height) <= largest) return canvas;
    from = canvas;
  }
}

/**
 * Draw an image on a canvas of its size; the style sheet enlarges it.
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
