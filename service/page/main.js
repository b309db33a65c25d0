/** Entry point: connects the controls of the page to the workbench. @module */

import { offerToTake } from "./export/controls.js";
import { camera } from "./inputs/camera.js";
import { pad } from "./inputs/drawing.js";
import { listen as listenForPictures, open, readClipboard } from "./inputs/files.js";
import { element } from "./lib/dom.js";
import { nameOf, signed } from "./lib/format.js";
import * as gestures from "./stage/gestures.js";
import { START } from "./stage/placement.js";
import { ServerView } from "./views/server.js";
import { tabs } from "./views/tabs.js";
import { Workbench } from "./workbench.js";

const DRAWN_SIZE = 2 / 3;
/** A drawing fills its pad; the digits of the samples fill two thirds of the stage's side. */
const UNITS = {
  turn: (/** @type {number} */ value) => `${signed(value)}°`,
  size: (/** @type {number} */ value) => `${value.toFixed(2)}×`,
  x: (/** @type {number} */ value) => `${signed(value * 100)} %`,
  y: (/** @type {number} */ value) => `${signed(value * 100)} %`,
  clutter: (/** @type {number} */ value) => `${value}`,
  noise: (/** @type {number} */ value) => `${Math.round(value)} %`,
};
const SLIDERS = /** @type {(keyof typeof UNITS)[]} */ (Object.keys(UNITS));

const workbench = new Workbench(showState);
const { state, problems } = workbench;
const serverView = new ServerView((error) => problems.show(error));
const frame = element("frame", HTMLDivElement);

/** @param {import("./workbench.js").State} state */
function showState({ picture, placement, disturbance, moving }) {
  for (const button of workbench.samples.children) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-sample") === picture?.sample));
  }
  const values = { ...placement, ...disturbance };
  for (const name of SLIDERS) {
    element(name, HTMLInputElement).value = String(values[name]);
    element(`${name}-value`, HTMLOutputElement).textContent = UNITS[name](values[name]);
  }
  element("invert", HTMLInputElement).checked = disturbance.invert;
  element("move", HTMLButtonElement).setAttribute("aria-pressed", String(moving !== null));
}

/**
 * @param {string} id
 * @param {() => unknown} act
 */
function onClick(id, act) {
  element(id, HTMLButtonElement).addEventListener("click", () => void act());
}

function listenToStage() {
  gestures.listen(frame, workbench.stage.canvas, () => state.placement, (placement) => workbench.change({ placement, moving: null }));
  for (const name of SLIDERS) {
    element(name, HTMLInputElement).addEventListener("input", ({ currentTarget }) => {
      const value = Number(/** @type {HTMLInputElement} */ (currentTarget).value);
      if (name === "clutter" || name === "noise") workbench.change({ disturbance: { ...state.disturbance, [name]: value } });
      else workbench.change({ placement: { ...state.placement, [name]: value }, moving: null });
    });
  }
  element("invert", HTMLInputElement).addEventListener("change", ({ currentTarget }) => {
    const invert = /** @type {HTMLInputElement} */ (currentTarget).checked;
    workbench.change({ disturbance: { ...state.disturbance, invert } });
  });
  element("show-points", HTMLInputElement).addEventListener("change", ({ currentTarget }) => {
    workbench.overlay.points = /** @type {HTMLInputElement} */ (currentTarget).checked;
    workbench.loop.ask();
  });
  onClick("move", () => workbench.toggleMotion());
  onClick("reset", () =>
    workbench.change({ placement: START, disturbance: { clutter: 0, noise: 0, invert: false }, moving: null }),
  );
}

function listenToPictures() {
  const file = element("file", HTMLInputElement);
  const openFile = (/** @type {File} */ found) => void workbench.take(open(found, found.name || "What you pasted"));
  listenForPictures(frame, openFile, (problem) => problems.show(problem));
  onClick("open-file", () => file.click());
  file.addEventListener("change", () => {
    if (file.files?.[0]) openFile(file.files[0]);
    file.value = "";
  });
  onClick("paste", () => workbench.take(readClipboard().then((blob) => open(blob, "What you pasted"))));

  const video = element("video", HTMLVideoElement);
  const openCamera = camera(
    {
      dialog: element("camera", HTMLDialogElement),
      video,
      keep: element("camera-keep", HTMLButtonElement),
    },
    (picture) => workbench.take(Promise.resolve(picture), state.picture?.name === "camera" ? state.placement : {}),
    () => {
      const live = state.picture?.source === video;
      if (live) workbench.change({});
      return live;
    },
  );
  onClick("open-camera", () => openCamera().catch((error) => problems.show(error)));
  const openPad = pad(
    {
      dialog: element("pad", HTMLDialogElement),
      ink: element("ink", HTMLCanvasElement),
      clear: element("pad-clear", HTMLButtonElement),
      close: element("pad-close", HTMLButtonElement),
    },
    (picture) => {
      const again = state.picture?.name === "drawing";
      void workbench.take(Promise.resolve(picture), again ? state.placement : { size: DRAWN_SIZE });
    },
  );
  onClick("open-pad", openPad);
}

function listenToTop() {
  workbench.modelChoice.addEventListener("change", () => {
    const model = workbench.models.find((candidate) => nameOf(candidate) === workbench.modelChoice.value);
    if (model) workbench.use(model, null).catch((error) => problems.show(error));
  });
  tabs(element("tabs", HTMLDivElement), (tab) => {
    element("workbench", HTMLElement).hidden = tab === "server";
    serverView.watch(tab === "server");
    workbench.change({ tab });
  });
}

window.addEventListener("hashchange", () => void workbench.begin());
listenToStage();
listenToPictures();
listenToTop();
offerToTake(workbench);
void workbench.begin();
