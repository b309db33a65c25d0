/** The position, rotation and scale of the picture on the stage. Pure functions. @module */

/** @typedef {import("../types.js").Placement} Placement */
/** @typedef {import("../types.js").Point} Point */
/** @typedef {import("../types.js").Size} Size */

/** @type {Readonly<Placement>} */
export const START = Object.freeze({ x: 0, y: 0, turn: 0, size: 1 });

export const LIMITS = Object.freeze({ shift: 1, smallest: 0.25, largest: 3 });

/**
 * Clamp a placement to the ranges of the sliders.
 * @param {Placement} placement
 * @returns {Placement}
 */
export function within({ x, y, turn, size }) {
  const clamp = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) =>
    Math.min(high, Math.max(low, value));
  const wrapped = ((((turn + 180) % 360) + 360) % 360) - 180;
  return {
    x: clamp(x, -LIMITS.shift, LIMITS.shift),
    y: clamp(y, -LIMITS.shift, LIMITS.shift),
    turn: wrapped === -180 && turn > 0 ? 180 : wrapped,
    size: clamp(size, LIMITS.smallest, LIMITS.largest),
  };
}

/**
 * The canvas matrix (a, b, c, d, e, f) that draws a picture at a placement. At size 1 the picture just fits.
 * @param {Placement} placement
 * @param {Size} picture
 * @param {Size} stage
 * @returns {[number, number, number, number, number, number]}
 */
export function matrix(placement, picture, stage) {
  const scale = Math.min(stage.width / picture.width, stage.height / picture.height) * placement.size;
  const angle = (placement.turn * Math.PI) / 180;
  const a = scale * Math.cos(angle);
  const b = scale * Math.sin(angle);
  const [x, y] = centre(placement, stage);
  return [a, b, -b, a, x - (a * picture.width - b * picture.height) / 2, y - (b * picture.width + a * picture.height) / 2];
}

/**
 * The middle of the picture, in pixels of the stage.
 * @param {Placement} placement
 * @param {Size} stage
 * @returns {Point}
 */
export function centre(placement, stage) {
  return [stage.width * (0.5 + placement.x), stage.height * (0.5 + placement.y)];
}

/**
 * Move by pixels of the stage.
 * @param {Placement} placement
 * @param {Point} by
 * @param {Size} stage
 * @returns {Placement}
 */
export function shift(placement, by, stage) {
  return within({ ...placement, x: placement.x + by[0] / stage.width, y: placement.y + by[1] / stage.height });
}

/**
 * Rotate and scale about the centre of the picture.
 * @param {Placement} placement
 * @param {number} degrees clockwise
 * @param {number} factor
 * @returns {Placement}
 */
export function change(placement, degrees, factor) {
  return within({ ...placement, turn: placement.turn + degrees, size: placement.size * factor });
}

/**
 * Apply a pinch: move, rotate and scale so that the points under the fingers stay under them.
 * @param {Placement} placement
 * @param {[Point, Point]} before in pixels of the stage
 * @param {[Point, Point]} after
 * @param {Size} stage
 * @returns {Placement}
 */
export function pinch(placement, [p, q], [p2, q2], stage) {
  const [u, v] = [q[0] - p[0], q[1] - p[1]];
  const [u2, v2] = [q2[0] - p2[0], q2[1] - p2[1]];
  const square = u * u + v * v;
  if (square === 0) return placement;
  const [real, imaginary] = [(u2 * u + v2 * v) / square, (v2 * u - u2 * v) / square];
  const [x, y] = centre(placement, stage);
  const [dx, dy] = [x - p[0], y - p[1]];
  const moved = { x: p2[0] + real * dx - imaginary * dy, y: p2[1] + imaginary * dx + real * dy };
  return within({
    x: moved.x / stage.width - 0.5,
    y: moved.y / stage.height - 0.5,
    turn: placement.turn + (Math.atan2(imaginary, real) * 180) / Math.PI,
    size: placement.size * Math.hypot(real, imaginary),
  });
}

/**
 * Scale about the pointer.
 * @param {Placement} placement
 * @param {number} factor
 * @param {Point} at in pixels of the stage
 * @param {Size} stage
 * @returns {Placement}
 */
export function zoom(placement, factor, at, stage) {
  const { size } = within({ ...placement, size: placement.size * factor });
  const real = size / placement.size;
  const [x, y] = centre(placement, stage);
  return within({
    ...placement,
    size,
    x: (at[0] + (x - at[0]) * real) / stage.width - 0.5,
    y: (at[1] + (y - at[1]) * real) / stage.height - 0.5,
  });
}

/**
 * The angle in degrees, clockwise, between two points about the centre of the picture.
 * @param {Placement} placement
 * @param {Point} from
 * @param {Point} to
 * @param {Size} stage
 * @returns {number}
 */
export function angleBetween(placement, from, to, stage) {
  const [x, y] = centre(placement, stage);
  const angle = Math.atan2(to[1] - y, to[0] - x) - Math.atan2(from[1] - y, from[0] - x);
  return (Math.atan2(Math.sin(angle), Math.cos(angle)) * 180) / Math.PI;
}

/**
 * A smooth motion that starts at `home`. Its periods differ, so that it does not repeat soon.
 * @param {Placement} home
 * @param {number} seconds
 * @returns {Placement}
 */
export function path(home, seconds) {
  const wave = (/** @type {number} */ period) => Math.sin((2 * Math.PI * seconds) / period);
  return within({
    x: home.x + 0.11 * wave(7.3),
    y: home.y + 0.11 * wave(5.1),
    turn: home.turn + 40 * wave(9.7),
    size: home.size * Math.exp(0.2 * wave(6.1)),
  });
}
