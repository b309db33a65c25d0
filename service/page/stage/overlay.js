/** Draws the sampled region over the stage, in pixels of the picture. @module */

import { outline } from "../lib/geometry.js";

/** @typedef {import("../types.js").Look} Look */
/** @typedef {import("../types.js").Point} Point */

const SVG = "http://www.w3.org/2000/svg";
export const MARGIN = 0.125;
/** Width of the frame around the stage, as a share of the stage's width; style.css has the same number. */

/** @param {Point[]} points */
const line = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(3)} ${y.toFixed(3)}`).join("");

/**
 * The lines of a grid of points, row by row and column by column.
 * @param {Point[]} points
 * @returns {string}
 */
function gridLines(points) {
  const side = Math.round(Math.sqrt(points.length));
  const inner = Array.from({ length: side - 2 }, (_, index) => index + 1);
  const rows = inner.map((row) => line(points.slice(row * side, (row + 1) * side)));
  const columns = inner.map((column) => line(points.filter((_, index) => index % side === column)));
  return rows.join("") + columns.join("");
}

export class Overlay {
  /** @param {SVGSVGElement} svg */
  constructor(svg) {
    this.svg = svg;
    this.points = true;
  }

  /**
   * Show the regions that the transformers sample.
   * @param {import("../types.js").Size} size of the picture
   * @param {{look: Look, bends: boolean}[]} looks the last one on top; `bends` where corners do not say all
   */
  show({ width, height }, looks) {
    const margin = MARGIN * width;
    const box = [-margin, -margin, width + 2 * margin, height + 2 * margin];
    this.svg.setAttribute("viewBox", box.join(" "));
    while (this.svg.children.length < looks.length) this.svg.append(group());
    while (this.svg.children.length > looks.length) this.svg.lastElementChild?.remove();
    looks.forEach(({ look, bends }, index) => this.draw(this.svg.children[index], look, bends, index));
  }

  /**
   * @param {Element} drawn
   * @param {Look} look
   * @param {boolean} bends
   * @param {number} index
   */
  draw(drawn, look, bends, index) {
    const { corners, points = [] } = look;
    const side = Math.round(Math.sqrt(points.length));
    const border = bends ? outline(points) : corners;
    drawn.setAttribute("class", `look look-${index % 4}`);
    const [shade, region, top, grid, dots] = drawn.children;
    for (const shape of [shade, region]) shape.setAttribute("points", border.map((point) => point.join(",")).join(" "));
    top.setAttribute("d", line(bends ? points.slice(0, side) : corners.slice(0, 2)));
    grid.setAttribute("d", bends ? gridLines(points) : "");
    dots.setAttribute("d", this.points ? points.map(([x, y]) => `M${x.toFixed(3)} ${y.toFixed(3)}h0`).join("") : "");
  }
}

function group() {
  const drawn = document.createElementNS(SVG, "g");
  for (const [name, kind] of [
    ["polygon", "shade"],
    ["polygon", "region"],
    ["path", "upper"],
    ["path", "grid"],
    ["path", "dots"],
  ]) {
    const shape = document.createElementNS(SVG, name);
    shape.setAttribute("class", kind);
    drawn.append(shape);
  }
  return drawn;
}
