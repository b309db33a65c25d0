/** The sample pictures of a model. @module */

import { ask } from "../lib/api.js";
import { open } from "./files.js";

/** @typedef {import("../types.js").Picture} Picture */

/**
 * The names of a model's sample pictures.
 * @param {string} model
 * @returns {Promise<string[]>}
 */
export async function listSamples(model) {
  return (await (await ask(`samples/${encodeURIComponent(model)}`)).json()).samples;
}

/**
 * A thumbnail of a sample. It is fetched by script, since an image element sends no API key.
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
    () => {}, // the alternative text is shown instead
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
 * The URL of a sample.
 * @param {string} model
 * @param {string} name
 */
function sampleUrl(model, name) {
  return `samples/${encodeURIComponent(model)}/${encodeURIComponent(name)}`;
}
