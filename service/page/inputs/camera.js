/** The camera as a live picture. @module */

import { Problem } from "../lib/api.js";
import { shrink } from "../lib/canvas.js";

/** @typedef {import("../types.js").Picture} Picture */

/**
 * @param {{dialog: HTMLDialogElement, video: HTMLVideoElement, keep: HTMLElement}} parts
 * @param {(picture: Picture) => void} onPicture
 * @param {() => boolean} onFrame there is a new frame to look at; whether there should be more
 * @returns {() => Promise<void>} opens it; fails with a `Problem`
 */
export function camera({ dialog, video, keep }, onPicture, onFrame) {
  /** @type {MediaStream | null} */
  let stream = null;

  const stop = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
    dialog.close();
  };
  const end = () => {
    if (stream === null) return;
    onPicture({ source: shrink(video, 512), name: "camera", sample: null });
    stop();
  };
  const watch = () => {
    if (stream === null) return;
    if (onFrame()) requestAnimationFrame(watch);
    else stop(); // another picture has been chosen meanwhile
  };
  keep.addEventListener("click", end);
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Escape") end();
  });

  return async () => {
    if (navigator.mediaDevices === undefined) {
      throw new Problem("Browsers give the camera to safe pages only.", "Open this page by https, or on localhost.");
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
    } catch (error) {
      const refused = error instanceof DOMException && error.name === "NotAllowedError";
      throw refused
        ? new Problem("The camera was not allowed.", "Allow it beside the address, or choose a file.")
        : new Problem("There is no camera that can be used.", "Choose a file instead.");
    }
    video.srcObject = stream;
    await video.play();
    onPicture({ source: video, name: "camera", sample: null });
    dialog.show();
    requestAnimationFrame(watch);
  };
}
