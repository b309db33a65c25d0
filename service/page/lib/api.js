/** Client of the service: requests, the API key, and errors with their remedy. @module */

/** @typedef {import("../types.js").Answer} Answer */
/** @typedef {import("../types.js").ModelInfo} ModelInfo */

const KEY = "stn-serve-key";
export const POINTS = 9;
/** Points along each side of the sampling grid that is requested. */

/** An error to show to the user: what happened and what to do. */
export class Problem extends Error {
  /**
   * @param {string} what happened
   * @param {string} todo about it
   * @param {number} [status] of HTTP
   * @param {number} [retryMs] after which trying again may help
   */
  constructor(what, todo, status = 0, retryMs = 0) {
    super(`${what} ${todo}`);
    this.what = what;
    this.todo = todo;
    this.status = status;
    this.retryMs = retryMs;
  }
}

/** @type {Record<number, [string, string]>} */
const SAID = {
  401: ["This service wants a key.", "Enter the one you were given; it is kept for this tab only."],
  403: ["This key may not do that.", "Ask whoever runs the service for one that may."],
  404: ["The service no longer has this model.", "Choose another one above, or load the page again."],
  408: ["The picture took too long to arrive.", "Try again; choose a smaller one if the connection is slow."],
  413: ["The picture is too large for this service.", "Choose a smaller one."],
  415: ["The service does not take this for a picture.", "Choose a PNG, JPEG, WebP, BMP or GIF file."],
  429: ["The service has as much to do as it takes.", "The page tries again by itself."],
  500: ["The model failed on this picture.", "Try another one; the service's log says why."],
  503: ["The service is not ready.", "The page tries again by itself."],
  504: ["The answer was not ready in time.", "The page tries again by itself."],
};
const AGAIN = new Set([429, 503, 504]);
export const AGAIN_MS = 1000;

/** @returns {string | null} */
export function storedKey() {
  return sessionStorage.getItem(KEY);
}

/** @param {string} key kept until this tab is closed */
export function storeKey(key) {
  sessionStorage.setItem(KEY, key);
}

/**
 * Send a request to the service.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>} a success
 * @throws {Problem}
 */
export async function ask(path, options = {}) {
  const key = storedKey();
  const headers = new Headers(options.headers);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    const todo = "Is it still running? The page tries again by itself.";
    throw new Problem("The service does not answer.", todo, 0, 2 * AGAIN_MS);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/**
 * Convert an unsuccessful response into a problem.
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
async function problemOf(response) {
  const { status } = response;
  const [what, todo] = SAID[status] ?? ["The service refused.", (await messageOf(response)) || `It answered ${status}.`];
  const seconds = Number(response.headers.get("Retry-After"));
  const retryMs = AGAIN.has(status) ? (seconds > 0 ? seconds * 1000 : AGAIN_MS) : 0;
  return new Problem(what, todo, status, retryMs);
}

/** @param {Response} response */
async function messageOf(response) {
  try {
    return String((await response.json()).error.message);
  } catch {
    return "";
  }
}

/** @returns {Promise<ModelInfo[]>} */
export async function listModels() {
  return (await (await ask("models")).json()).models;
}

/**
 * The query of a prediction by a model.
 * @param {ModelInfo} model
 * @returns {string}
 */
export function predictQuery(model) {
  const query = new URLSearchParams({
    model: model.name,
    version: String(model.version),
    top_k: "5",
    points: String(POINTS),
  });
  return query.toString();
}

/**
 * Request the rectified picture itself.
 * @param {ModelInfo} model
 * @param {Blob} picture
 * @returns {Promise<Blob>} a PNG file
 * @throws {Problem}
 */
export async function rectify(model, picture) {
  const query = new URLSearchParams({ model: model.name, version: String(model.version) });
  const headers = { "Content-Type": picture.type, Accept: "image/png" };
  return (await ask(`rectify?${query}`, { method: "POST", headers, body: picture })).blob();
}

/**
 * Request a prediction.
 * @param {ModelInfo} model
 * @param {Uint8Array} picture a BMP file
 * @returns {Promise<{answer: Answer, roundTrip: number}>} with the milliseconds from here and back
 * @throws {Problem}
 */
export async function predict(model, picture) {
  const began = performance.now();
  const response = await ask(`predict?${predictQuery(model)}`, {
    method: "POST",
    headers: { "Content-Type": "image/bmp" },
    body: picture,
  });
  const answer = await response.json();
  return { answer, roundTrip: performance.now() - began };
}
