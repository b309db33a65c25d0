/** Pictures from files, drag and drop, and the clipboard. @module */

import { Problem } from "../lib/api.js";
import { shrink } from "../lib/canvas.js";

/** @typedef {import("../types.js").Picture} Picture */

const LARGEST = 512;
/** Largest side in pixels that a picture is kept at; the stage shows far fewer. */

/**
 * Decode a file.
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
 * Listen for pictures that are dropped or pasted anywhere on the page.
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
 * Read the clipboard, for devices without a keyboard.
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
