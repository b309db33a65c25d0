/** Turns mouse, touch, wheel and keyboard input on the stage into changes of the placement. @module */

import { angleBetween, change, pinch, shift, START, zoom } from "./placement.js";

/** @typedef {import("../types.js").Placement} Placement */
/** @typedef {import("../types.js").Point} Point */

const WHEEL = 0.0015;
const STEP = 0.02;
/** Step of an arrow key, as a share of the stage. */

/** @type {Record<string, (placement: Placement, fine: number) => Placement>} */
const KEYS = {
  ArrowLeft: (placement, fine) => shift(placement, [-STEP * fine, 0], { width: 1, height: 1 }),
  ArrowRight: (placement, fine) => shift(placement, [STEP * fine, 0], { width: 1, height: 1 }),
  ArrowUp: (placement, fine) => shift(placement, [0, -STEP * fine], { width: 1, height: 1 }),
  ArrowDown: (placement, fine) => shift(placement, [0, STEP * fine], { width: 1, height: 1 }),
  "+": (placement) => change(placement, 0, 1.05),
  "=": (placement) => change(placement, 0, 1.05),
  "-": (placement) => change(placement, 0, 1 / 1.05),
  "[": (placement) => change(placement, -3, 1),
  "]": (placement) => change(placement, 3, 1),
  0: () => START,
};

/**
 * Listen for gestures that move the picture.
 * @param {HTMLElement} frame takes the pointers; its border turns
 * @param {HTMLCanvasElement} stage takes the keys
 * @param {() => Placement} now
 * @param {(placement: Placement) => void} onChange
 */
export function listen(frame, stage, now, onChange) {
  /** @type {Map<number, Point>} */
  const fingers = new Map();
  let turning = false;

  /**
   * @param {MouseEvent} event
   * @returns {Point} in pixels of the stage
   */
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [x * stage.width, y * stage.height];
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const point = at(event);
    turning = event.shiftKey || point[0] < 0 || point[1] < 0 || point[0] > stage.width || point[1] > stage.height;
    frame.setPointerCapture(event.pointerId);
    frame.classList.add("held");
    fingers.set(event.pointerId, point);
    stage.focus({ preventScroll: true });
    event.preventDefault();
  });
  frame.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before === undefined) return;
    const after = at(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, after);
    if (other !== undefined) onChange(pinch(now(), [other, before], [other, after], stage));
    else if (turning) onChange(change(now(), angleBetween(now(), before, after, stage), 1));
    else onChange(shift(now(), [after[0] - before[0], after[1] - before[1]], stage));
  });
  const letGo = (/** @type {PointerEvent} */ event) => {
    fingers.delete(event.pointerId);
    frame.classList.toggle("held", fingers.size > 0);
  };
  frame.addEventListener("pointerup", letGo);
  frame.addEventListener("pointercancel", letGo);
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
      if (event.altKey) onChange(change(now(), pixels / 8, 1));
      else onChange(zoom(now(), Math.exp(-pixels * WHEEL), at(event), stage));
    },
    { passive: false },
  );
  stage.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onChange(act(now(), event.shiftKey ? 0.25 : 1));
  });
}
