/** Records a video of the stage and the rectified image side by side. @module */

import { Problem } from "../lib/api.js";
import { contextOf } from "../lib/canvas.js";

/** @typedef {import("../types.js").Point} Point */

const SIDE = 360;
const GAP = 12;
const TYPES = ["video/webm;codecs=vp9", "video/webm", "video/mp4"];

export class Recorder {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.canvas.width = 2 * SIDE + 3 * GAP;
    this.canvas.height = SIDE + 2 * GAP;
    this.context = contextOf(this.canvas);
    /** @type {MediaRecorder | null} */
    this.recorder = null;
  }

  get on() {
    return this.recorder !== null;
  }

  /**
   * Start to record.
   * @param {(film: Blob) => void} onFilm receives the video when the recording has ended
   * @throws {Problem}
   */
  begin(onFilm) {
    const type = "MediaRecorder" in window ? TYPES.find((name) => MediaRecorder.isTypeSupported(name)) : undefined;
    if (type === undefined) throw new Problem("This browser records no films.", "Try a newer one.");
    const recorder = new MediaRecorder(this.canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 4_000_000 });
    /** @type {Blob[]} */
    const pieces = [];
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    recorder.addEventListener("stop", () => onFilm(new Blob(pieces, { type: type.split(";")[0] })));
    recorder.start();
    this.recorder = recorder;
  }

  /** Stop recording; `onFilm` is called soon after. */
  end() {
    this.recorder?.stop();
    this.recorder = null;
  }

  /**
   * Add a frame.
   * @param {HTMLCanvasElement} stage
   * @param {HTMLCanvasElement} rectified
   * @param {Point[]} corners in pixels of the stage
   */
  frame(stage, rectified, corners) {
    if (!this.on) return;
    const { context } = this;
    context.fillStyle = "#15181d";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(stage, GAP, GAP, SIDE, SIDE);
    context.drawImage(rectified, SIDE + 2 * GAP, GAP, SIDE, SIDE);
    const places = corners.map(([x, y]) => [GAP + (x / stage.width) * SIDE, GAP + (y / stage.height) * SIDE]);
    this.line(places, "#ff9f1c", true);
    this.line(places.slice(0, 2), "#5aa9ff", false);
  }

  /**
   * @param {number[][]} places
   * @param {string} colour
   * @param {boolean} closed
   */
  line(places, colour, closed) {
    const { context } = this;
    Object.assign(context, { strokeStyle: colour, lineWidth: 3, lineJoin: "round", lineCap: "round" });
    context.beginPath();
    for (const [x, y] of places) context.lineTo(x, y);
    if (closed) context.closePath();
    context.stroke();
  }
}
