/** The content of the stage as a link and as a curl command. @module */

import { START, within } from "../stage/placement.js";

/** @typedef {import("../types.js").Placement} Placement */
/** @typedef {import("../types.js").Disturbance} Disturbance */
/** @typedef {{model: string, version: number, sample: string | null, picture: string | null, placement: Placement,
 *   disturbance: Disturbance}} Shared `picture` is a data URL, for one that is no sample */

const LONGEST_PICTURE = 12_000;

/**
 * @param {Shared} shared
 * @returns {string} what follows # in the address
 */
export function toHash({ model, version, sample, picture, placement, disturbance }) {
  const rounded = (/** @type {number} */ value) => String(Math.round(value * 1000) / 1000);
  const words = new URLSearchParams({ model, version: String(version) });
  if (sample !== null) words.set("sample", sample);
  else if (picture !== null && picture.length <= LONGEST_PICTURE) words.set("picture", picture);
  for (const [name, value] of Object.entries(placement)) {
    if (value !== START[/** @type {keyof Placement} */ (name)]) words.set(name, rounded(value));
  }
  for (const name of /** @type {const} */ (["clutter", "noise"])) {
    if (disturbance[name] !== 0) words.set(name, rounded(disturbance[name]));
  }
  if (disturbance.invert) words.set("invert", "1");
  return words.toString();
}

/**
 * @param {string} hash as of `toHash`; nothing in it is trusted
 * @returns {Shared | null} null if it says no model
 */
export function fromHash(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const model = words.get("model");
  if (model === null) return null;
  const number = (/** @type {string} */ name, /** @type {number} */ otherwise) => {
    const value = Number(words.get(name) ?? otherwise);
    return Number.isFinite(value) ? value : otherwise;
  };
  const picture = words.get("picture");
  return {
    model,
    version: number("version", 0),
    sample: words.get("sample"),
    picture: picture !== null && /^data:image\/png;base64,[A-Za-z0-9+/=]+$/.test(picture) ? picture : null,
    placement: within({ x: number("x", 0), y: number("y", 0), turn: number("turn", 0), size: number("size", 1) }),
    disturbance: {
      clutter: Math.min(16, Math.max(0, Math.round(number("clutter", 0)))),
      noise: Math.min(100, Math.max(0, number("noise", 0))),
      invert: words.get("invert") === "1",
    },
  };
}

/**
 * Quote text for a POSIX shell.
 * @param {string} text
 */
const quoted = (text) => `'${text.replace(/'/g, `'\\''`)}'`;

/**
 * The curl command that sends the content of the stage. It reads the key from an environment variable.
 * @param {string} url
 * @param {string} picture a PNG file in base64
 * @param {boolean} keyed
 * @returns {string}
 */
export function toCurl(url, picture, keyed) {
  const key = keyed ? ` -H "Authorization: Bearer $STN_API_KEY"` : "";
  return `echo ${quoted(picture)} | base64 -d | curl -sS${key} -H 'Content-Type: image/png' --data-binary @- ${quoted(url)}`;
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>} in base64
 */
export async function toBase64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/**
 * Decode a data URL. The Content-Security-Policy does not let fetch() read one.
 * @param {string} url of `fromHash`
 * @returns {Blob}
 */
export function fromDataUrl(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
