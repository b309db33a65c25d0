/** Numbers and names as text. @module */

/** @typedef {import("../types.js").ModelInfo} ModelInfo */

/**
 * Format with the minus sign of typography, and without a sign before zero.
 * @param {number} value
 * @param {number} digits after the point
 */
export function signed(value, digits = 0) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** @param {number} share from 0 to 1 */
export const percent = (share) => `${(share * 100).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

/** @param {string} text */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {ModelInfo} model */
export const nameOf = (model) => `${model.name}/${model.version}`;
