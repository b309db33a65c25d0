/** A drawing pad: white ink on black, as in the training data. @module */

import { contextOf, shrink } from "../lib/canvas.js";

/**
 * @param {{dialog: HTMLDialogElement, ink: HTMLCanvasElement, clear: HTMLElement, close: HTMLElement}} parts
 * @param {(picture: import("../types.js").Picture) => void} onPicture
 * @returns {() => void} opens it
 */
export function pad({ dialog, ink, clear, close }, onPicture) {
  const context = contextOf(ink);
  let drawing = false;

  const at = (/** @type {PointerEvent} */ event) => {
    const box = ink.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * ink.width, ((event.clientY - box.top) / box.height) * ink.height];
  };
  const show = () => onPicture({ source: shrink(ink, 140), name: "drawing", sample: null });
  const wipe = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, ink.width, ink.height);
  };

  ink.addEventListener("pointerdown", (event) => {
    drawing = true;
    ink.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
    Object.assign(context, { lineWidth: ink.width / 11, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x, y);
    context.stroke();
    show();
  });
  ink.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const [x, y] = at(event);
    context.lineTo(x, y);
    context.stroke();
    show();
  });
  for (const kind of ["pointerup", "pointercancel"]) ink.addEventListener(kind, () => (drawing = false));
  clear.addEventListener("click", () => {
    wipe();
    show();
  });
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Escape") dialog.close();
  });
  wipe();
  return () => {
    wipe();
    dialog.show();
  };
}
