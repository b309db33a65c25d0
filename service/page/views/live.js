/** The camera's pictures: answered over a stream, or by requests where there is none, which the dialog says. @module */

import { predict } from "../lib/api.js";
import { toBmp } from "../lib/bmp.js";
import { element } from "../lib/dom.js";
import { NoStream, Stream } from "../lib/stream.js";

/** @typedef {import("../types.js").Answer} Answer */
/** @typedef {import("../types.js").ModelInfo} ModelInfo */

export class LiveView {
  constructor() {
    this.stream = new Stream();
    this.way = element("camera-way", HTMLParagraphElement);
    this.refused = false;
  }

  /**
   * @param {ModelInfo} model
   * @param {ImageData} pixels
   * @param {Promise<Blob>} picture the same as a JPEG file
   * @returns {Promise<{answer: Answer, roundTrip: number}>} with the milliseconds from here and back
   * @throws {import("../lib/api.js").Problem}
   */
  async predict(model, pixels, picture) {
    if (!this.refused) {
      try {
        const found = await this.stream.predict(model, picture);
        this.say("All pictures go over one connection.");
        return found;
      } catch (error) {
        if (!(error instanceof NoStream)) throw error;
        this.refused = true;
        this.say(`Each picture is a request of its own, as the service takes no stream: ${error.message}.`);
      }
    }
    return predict(model, toBmp(pixels));
  }

  /** @param {string} text */
  say(text) {
    if (this.way.textContent !== text) this.way.textContent = text;
  }

  /** Leave the stream; the next picture opens another one. */
  end() {
    this.stream.close();
    this.refused = false;
  }
}
