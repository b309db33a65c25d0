/** Predictions over one WebSocket instead of a request each. @module */

import { AGAIN_MS, Problem, predictQuery } from "./api.js";

/** @typedef {import("../types.js").Answer} Answer */
/** @typedef {import("../types.js").ModelInfo} ModelInfo */

/** Tells that the service takes no stream from this page, and why. */
export class NoStream extends Error {}

export class Stream {
  constructor() {
    /** @type {WebSocket | null} */
    this.socket = null;
    this.address = "";
  }

  /**
   * Predict a frame. Wait for the answer before the next one; the frame that is sent is then always the newest.
   * @param {ModelInfo} model
   * @param {Promise<Blob>} picture
   * @returns {Promise<{answer: Answer, roundTrip: number}>} with the milliseconds from here and back
   * @throws {NoStream | Problem}
   */
  async predict(model, picture) {
    const [socket, frame] = await Promise.all([this.connect(model), picture]);
    const began = performance.now();
    const message = await exchange(socket, frame);
    if (message.frame === undefined) throw new NoStream(message.error.message);
    if (message.error !== undefined) throw new Problem("The service refused.", message.error.message, 0, AGAIN_MS);
    return { answer: message, roundTrip: performance.now() - began };
  }

  /**
   * Open a connection to `model`, unless it is open.
   * @param {ModelInfo} model
   * @returns {Promise<WebSocket>}
   * @throws {NoStream}
   */
  async connect(model) {
    const address = new URL(`stream?${predictQuery(model)}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (this.socket?.readyState === WebSocket.OPEN && this.address === address.href) return this.socket;
    this.close();
    const socket = new WebSocket(address);
    this.socket = socket;
    this.address = address.href;
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = () => reject(new NoStream("streams are off, or need a key, which browsers cannot send"));
    });
    return socket;
  }

  close() {
    this.socket?.close();
    this.socket = null;
  }
}

/**
 * Send a frame and wait for the next message.
 * @param {WebSocket} socket
 * @param {Blob} frame
 * @returns {Promise<any>}
 * @throws {NoStream}
 */
function exchange(socket, frame) {
  return new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(JSON.parse(event.data));
    socket.onclose = () => reject(new NoStream("the connection was closed"));
    if (socket.readyState === WebSocket.OPEN) socket.send(frame);
    else reject(new NoStream("the connection was closed"));
  });
}
