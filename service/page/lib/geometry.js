/** Decomposes theta and describes it in words; areas of polygons. Pure functions. @module */

/** @typedef {import("../types.js").Point} Point */
/** @typedef {import("../types.js").Size} Size */
/** @typedef {{turn: number, zoom: number, right: number, down: number, stretch: number, mirrored: boolean}} Parts */

/**
 * Decompose theta, which maps the rectified image to a picture of `size`.
 *
 * The turn is the rotation nearest to theta, after a mirror from left to right if there is one; the zoom is how many
 * times larger things are in the rectified image than if that showed the whole picture; the stretch is how much longer
 * one axis is than the other. Turn and stretch are those of pixels: theta is taken out of its square of -1 to 1.
 * @param {number[][]} theta
 * @param {Size} size
 * @returns {Parts}
 */
export function takeApart(theta, size) {
  const aspect = size.width / size.height;
  const [a, b] = [theta[0][0], theta[0][1] * aspect];
  const [c, d] = [theta[1][0] / aspect, theta[1][1]];
  const determinant = a * d - b * c;
  const mirrored = determinant < 0;
  const turn = mirrored ? Math.atan2(-c - b, d - a) : Math.atan2(c - b, a + d);
  const [sum, difference] = [Math.hypot(a + d, c - b), Math.hypot(a - d, c + b)];
  const [long, short] = [(sum + difference) / 2, Math.abs(sum - difference) / 2];
  return {
    turn: (turn * 180) / Math.PI,
    zoom: determinant === 0 ? Infinity : 1 / Math.sqrt(Math.abs(determinant)),
    right: (theta[0][2] * size.width) / 2,
    down: (theta[1][2] * size.height) / 2,
    stretch: short === 0 ? Infinity : long / short,
    mirrored,
  };
}

/**
 * Describe the parts in words: "turned 23° left, zoomed 1.4×, looking 6 px right and 2 px up".
 * @param {Parts} parts
 * @returns {string}
 */
export function inWords(parts) {
  const turn = Math.round(Math.abs(parts.turn));
  const said = [turn === 0 ? "not turned" : `turned ${turn}° ${parts.turn > 0 ? "right" : "left"}`];
  said.push(Math.abs(parts.zoom - 1) < 0.05 ? "not zoomed" : `zoomed ${number(parts.zoom)}×`);
  const across = aside(parts.right, "right", "left");
  const down = aside(parts.down, "down", "up");
  const places = [across, down].filter((place) => place !== "");
  said.push(places.length === 0 ? "looking at the middle" : `looking ${places.join(" and ")}`);
  if (parts.stretch >= 1.15) said.push(`stretched ${number(parts.stretch)}×`);
  if (parts.mirrored) said.push("mirrored");
  return said.join(", ");
}

/** @param {number} value */
const number = (value) => (Number.isFinite(value) ? value.toFixed(value < 10 ? 1 : 0) : "∞");

/**
 * @param {number} pixels
 * @param {string} positive
 * @param {string} negative
 */
function aside(pixels, positive, negative) {
  const rounded = Math.round(Math.abs(pixels));
  return rounded === 0 ? "" : `${rounded} px ${pixels > 0 ? positive : negative}`;
}

/**
 * The border of a square grid of points, clockwise from its first.
 * @param {Point[]} points row by row
 * @returns {Point[]}
 */
export function outline(points) {
  const side = Math.round(Math.sqrt(points.length));
  const steps = Array.from({ length: side - 1 }, (_, step) => step);
  const last = side - 1;
  return [
    ...steps.map((step) => points[step]),
    ...steps.map((step) => points[step * side + last]),
    ...steps.map((step) => points[last * side + last - step]),
    ...steps.map((step) => points[(last - step) * side]),
  ];
}

/**
 * The share of a polygon's area that lies outside a picture.
 * @param {Point[]} polygon in the picture's pixels
 * @param {Size} size
 * @returns {number} from 0 to 1
 */
export function outsideShare(polygon, size) {
  const whole = area(polygon);
  return whole === 0 ? 0 : Math.max(0, 1 - area(clip(polygon, size)) / whole);
}

/**
 * The area that a polygon encloses (the shoelace formula).
 * @param {Point[]} polygon
 * @returns {number}
 */
export function area(polygon) {
  return Math.abs(
    polygon.reduce((sum, [x, y], index) => {
      const [x2, y2] = polygon[(index + 1) % polygon.length];
      return sum + (x * y2 - x2 * y) / 2;
    }, 0),
  );
}

/**
 * Clip a polygon to a picture (Sutherland and Hodgman 1974).
 * @param {Point[]} polygon
 * @param {Size} size
 * @returns {Point[]}
 */
export function clip(polygon, { width, height }) {
  /** @type {((point: Point) => number)[]} */
  const depths = [([x]) => x, ([x]) => width - x, ([, y]) => y, ([, y]) => height - y];
  return depths.reduce((kept, depth) => {
    /** @type {Point[]} */
    const next = [];
    kept.forEach((point, index) => {
      const before = kept[(index + kept.length - 1) % kept.length];
      const [inside, insideBefore] = [depth(point), depth(before)];
      if (inside >= 0 !== insideBefore >= 0) {
        const share = insideBefore / (insideBefore - inside);
        next.push([before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])]);
      }
      if (inside >= 0) next.push(point);
    });
    return next;
  }, polygon);
}
