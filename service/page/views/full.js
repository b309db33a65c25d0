/** The rectified picture in the resolution of the picture on the stage, with a link to save it. @module */

import { rectify } from "../lib/api.js";
import { element } from "../lib/dom.js";

/** @typedef {import("../types.js").ModelInfo} ModelInfo */

export class FullSizeView {
  constructor() {
    this.figure = element("full", HTMLElement);
    this.image = element("full-image", HTMLImageElement);
    this.link = element("full-save", HTMLAnchorElement);
    this.size = element("full-size", HTMLElement);
    this.asked = 0;
  }

  /** Hide the picture, which no longer belongs to the stage. */
  clear() {
    this.asked += 1;
    this.figure.hidden = true;
  }

  /**
   * Request the rectified picture and show it, unless the stage has changed meanwhile.
   * @param {ModelInfo} model
   * @param {Promise<Blob>} picture
   */
  async show(model, picture) {
    const asked = ++this.asked;
    try {
      const content = await rectify(model, await picture);
      const url = URL.createObjectURL(content);
      if (asked !== this.asked) return URL.revokeObjectURL(url);
      URL.revokeObjectURL(this.link.href);
      this.image.src = this.link.href = url;
      await this.image.decode();
      this.size.textContent = `${this.image.naturalWidth} × ${this.image.naturalHeight} pixels`;
      this.figure.hidden = asked !== this.asked;
    } catch {
      this.clear(); // the prediction says what is wrong
    }
  }
}
