/** Pictures by file, drop, paste and sample. @module */

import { ask, Problem } from "./api.js";
import { contextOf } from "./stage.js";

/** @typedef {import("./types.js").Picture} Picture */

const LARGEST = 512;
/** Pixels of a picture's longer side that are kept: the stage shows far fewer. */

/**
 * A file as a picture.
 * @param {Blob} file
 * @param {string} name
 * @param {string | null} [sample] its file's name, if it is one of the model's samples
 * @returns {Promise<Picture>}
 * @throws {Problem}
 */
export async function open(file, name, sample = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Problem(`${name} is not a picture that this browser can read.`, "Choose a PNG, JPEG, WebP, GIF or BMP file.");
  }
  const source = shrink(bitmap, LARGEST);
  bitmap.close();
  return { source, name, sample };
}

/**
 * A copy on a canvas, halved again and again until it is small enough, so that no pixel is passed over.
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
 * The names of a model's sample pictures.
 * @param {string} model
 * @returns {Promise<string[]>}
 */
export async function listSamples(model) {
  return (await (await ask(`samples/${encodeURIComponent(model)}`)).json()).samples;
}

/**
 * Where a sample is.
 * @param {string} model
 * @param {string} name
 */
function sampleUrl(model, name) {
  return `samples/${encodeURIComponent(model)}/${encodeURIComponent(name)}`;
}

/**
 * A small picture of a sample. Its element could not ask for it, as it sends no key.
 * @param {string} model
 * @param {string} name
 * @returns {HTMLImageElement} empty until the sample has come
 */
export function showSample(model, name) {
  const image = document.createElement("img");
  void ask(sampleUrl(model, name)).then(
    async (response) => {
      image.src = URL.createObjectURL(await response.blob());
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    },
    () => {}, // its name stands in its place
  );
  return image;
}

/**
 * @param {string} model
 * @param {string} name
 * @returns {Promise<Picture>}
 */
export async function openSample(model, name) {
  const response = await ask(sampleUrl(model, name));
  return open(await response.blob(), name, name);
}

/**
 * Take pictures that are dropped or pasted anywhere on the page.
 * @param {HTMLElement} frame is marked while a file hangs over the page
 * @param {(file: File) => void} onFile
 * @param {(problem: Problem) => void} onProblem
 */
export function listen(frame, onFile, onProblem) {
  const take = (/** @type {DataTransfer | null} */ data, /** @type {string} */ how) => {
    const file = data?.files[0];
    if (file) onFile(file);
    else onProblem(new Problem(`There is no picture in what you ${how}.`, "Copy or drag a picture, or a picture file."));
  };
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    frame.classList.add("hovered");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) frame.classList.remove("hovered");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    frame.classList.remove("hovered");
    take(event.dataTransfer, "dropped");
  });
  document.addEventListener("paste", (event) => {
    if (event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    take(event.clipboardData, "pasted");
  });
}

/**
 * What is on the clipboard, for those who have no keys to paste with.
 * @returns {Promise<Blob>}
 * @throws {Problem}
 */
export async function readClipboard() {
  const keys = "Press Ctrl+V (⌘V) instead.";
  let items;
  try {
    items = await navigator.clipboard.read();
  } catch {
    throw new Problem("The browser does not let this page read the clipboard.", keys);
  }
  for (const item of items) {
    const type = item.types.find((name) => name.startsWith("image/"));
    if (type !== undefined) return item.getType(type);
  }
  throw new Problem("There is no picture on the clipboard.", "Copy one first.");
}
