/** The page: one state, which inputs change; the stage draws it, the service answers to it, the views show the answer. @module */

import { AnswerView, decode, element, looksOf, percent } from "./answer.js";
import { listModels, predict, predictPath, Problem, storedKey } from "./api.js";
import { toBmp } from "./bmp.js";
import { camera } from "./camera.js";
import { CompareView, nameOf, offer } from "./compare.js";
import * as gestures from "./gestures.js";
import { MotionView } from "./motion.js";
import { Newest, Rate } from "./newest.js";
import { Overlay } from "./overlay.js";
import { pad } from "./pad.js";
import { path, START, within } from "./placement.js";
import { Problems } from "./problems.js";
import { Recorder } from "./record.js";
import { ServerView } from "./server.js";
import { fromDataUrl, fromHash, toBase64, toCurl, toHash } from "./share.js";
import { listSamples, listen as listenForPictures, open, openSample, readClipboard, sampleUrl, shrink } from "./sources.js";
import { contextOf, Stage } from "./stage.js";
import { tabs } from "./tabs.js";

/** @typedef {import("./types.js").ModelInfo} ModelInfo */
/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {import("./types.js").Placement} Placement */

const QUIET_MS = 900;
/** How long an answer stands before it is spoken and the address follows. */
const DRAWN_SIZE = 2 / 3;
/** A drawing fills its pad; the digits of the samples fill two thirds of the stage's side. */
const SLIDERS = /** @type {const} */ (["turn", "size", "x", "y", "clutter", "noise"]);
/** @type {Record<(typeof SLIDERS)[number], (value: number) => string>} */
const UNITS = {
  turn: (value) => `${Math.round(value)}°`,
  size: (value) => `${value.toFixed(2)}×`,
  x: (value) => `${Math.round(value * 100)} %`,
  y: (value) => `${Math.round(value * 100)} %`,
  clutter: (value) => `${value}`,
  noise: (value) => `${Math.round(value)} %`,
};

const stage = new Stage(element("stage", HTMLCanvasElement));
const overlay = new Overlay(element("overlay", SVGSVGElement));
const frame = element("frame", HTMLDivElement);
const modelChoice = element("model", HTMLSelectElement);
const samples = element("samples", HTMLDivElement);
const spoken = element("spoken", HTMLParagraphElement);
const taken = element("taken", HTMLElement);
const answerView = new AnswerView();
const motionView = new MotionView();
const recorder = new Recorder();
const rate = new Rate();
const problems = new Problems(() => void begin());
const serverView = new ServerView((error) => problems.show(error));
const compareView = new CompareView(() => loop.ask());
const loop = new Newest(look);

const state = {
  /** @type {ModelInfo[]} */
  models: [],
  /** @type {ModelInfo | null} */
  model: null,
  /** @type {Picture | null} */
  picture: null,
  /** @type {Placement} */
  placement: START,
  disturbance: { clutter: 0, noise: 0, invert: false },
  tab: "look",
  /** @type {{home: Placement, since: number} | null} */
  moving: null,
};

/** @param {Partial<typeof state>} patch what changes; all that follows from it follows */
function change(patch) {
  Object.assign(state, patch);
  draw();
  loop.ask();
}

function draw() {
  if (state.picture !== null) stage.draw(state.picture, state.placement, state.disturbance);
  const values = { ...state.placement, ...state.disturbance };
  for (const name of SLIDERS) {
    element(name, HTMLInputElement).value = String(values[name]);
    element(`${name}-value`, HTMLOutputElement).textContent = UNITS[name](values[name]);
  }
  element("invert", HTMLInputElement).checked = values.invert;
}

/** Ask the service about what is on the stage now. */
async function look() {
  const { model, picture, tab } = state;
  if (model === null || picture === null || tab === "server") return;
  const pixels = stage.pixels();
  try {
    if (tab === "compare") overlay.show(pixels, await compareView.look(toBmp(pixels), pixels));
    else await lookWith(model, pixels);
    problems.answered();
  } catch (error) {
    problems.show(error, () => loop.ask());
  }
}

/**
 * @param {ModelInfo} model
 * @param {ImageData} pixels
 */
async function lookWith(model, pixels) {
  const { answer, roundTrip } = await predict(model, toBmp(pixels));
  const looks = looksOf(answer, model.transforms[0]?.kind);
  const image = await decode(answer);
  overlay.show(pixels, looks);
  answerView.show(answer, looks, image, pixels, roundTrip, rate.count(performance.now()));
  if (state.moving !== null) {
    const { canvas } = contextOf(answerView.rectified);
    motionView.add(pixels, contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height));
  }
  recorder.frame(stage.canvas, answerView.rectified, answer.corners);
  settle(answer);
}

let settling = 0;

/** @param {import("./types.js").Answer} answer is spoken, and the address follows, once it stands still */
function settle(answer) {
  clearTimeout(settling);
  settling = window.setTimeout(() => {
    const [best] = answer.predictions;
    spoken.textContent = `${best.label}, ${percent(best.probability)}. ${answerView.words.textContent}`;
    history.replaceState(null, "", `#${addressOf(null)}`);
  }, QUIET_MS);
}

/** @param {string | null} picture a data URL */
function addressOf(picture) {
  const { model, placement, disturbance } = state;
  if (model === null) return "";
  const sample = state.picture?.sample ?? null;
  return toHash({ model: model.name, version: model.version, sample, picture, placement, disturbance });
}

/**
 * Take another picture.
 * @param {Promise<Picture>} coming
 * @param {Partial<Placement>} [placement]
 */
async function take(coming, placement = {}) {
  try {
    const picture = await coming;
    problems.hide();
    stopMoving();
    for (const button of samples.children) {
      button.setAttribute("aria-pressed", String(button.getAttribute("data-sample") === picture.sample));
    }
    change({ picture, placement: within({ ...START, ...placement }) });
  } catch (error) {
    problems.show(error);
  }
}

/** @param {ModelInfo} model whose samples are offered */
async function offerSamples(model) {
  const names = await listSamples(model.name);
  samples.replaceChildren(
    ...names.map((name) => {
      const button = document.createElement("button");
      const image = document.createElement("img");
      button.type = "button";
      button.dataset.sample = name;
      button.title = image.alt = name.replace(/\.\w+$/, "");
      image.src = sampleUrl(model.name, name);
      button.setAttribute("aria-pressed", "false");
      button.append(image);
      button.addEventListener("click", () => void take(openSample(model.name, name)));
      return button;
    }),
  );
  return names;
}

/**
 * @param {ModelInfo} model
 * @param {string | null} sample to begin with; the first one of another model
 */
async function useModel(model, sample) {
  const other = model.name !== state.model?.name;
  stage.fit(model.input);
  stopMoving();
  change({ model });
  modelChoice.value = nameOf(model);
  element("calibration", HTMLElement).textContent = model.temperature === 1 ? "probabilities" : "calibrated probabilities";
  if (!other) return;
  const names = await offerSamples(model);
  const wanted = sample !== null && names.includes(sample) ? sample : names[Math.min(3, names.length - 1)];
  if (state.picture === null || state.picture.sample !== null) {
    if (wanted !== undefined) await take(openSample(model.name, wanted));
  }
}

function stopMoving() {
  state.moving = null;
  element("move", HTMLButtonElement).setAttribute("aria-pressed", "false");
}

function move() {
  if (state.moving === null) return;
  const { home, since } = state.moving;
  change({ placement: path(home, (performance.now() - since) / 1000) });
  requestAnimationFrame(move);
}

/** Load what the service has, and what the address says. */
async function begin() {
  try {
    const models = await listModels();
    problems.hide();
    const shared = fromHash(location.hash);
    const named = models.filter((model) => model.name === (shared?.model ?? model.name));
    const model = named.find((candidate) => candidate.version === shared?.version) ?? newest(named) ?? models[0];
    state.models = models;
    offer(modelChoice, models);
    compareView.offer(models);
    if (model === undefined) return;
    await useModel(model, shared?.sample ?? null);
    if (shared === null) return;
    if (shared.picture !== null) await take(open(fromDataUrl(shared.picture), "the shared picture"));
    change({ placement: shared.placement, disturbance: shared.disturbance });
  } catch (error) {
    problems.show(error, () => void begin());
  }
}

/**
 * What the service answers with unless told otherwise: the highest version of the first name.
 * @param {ModelInfo[]} models
 */
function newest(models) {
  return models.filter(({ name }) => name === models[0].name).sort((one, other) => other.version - one.version)[0];
}

/**
 * @param {string} text
 * @param {string} said
 */
async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
    taken.textContent = said;
  } catch {
    problems.show(new Problem("The browser does not let this page copy.", "Open it by https, or on localhost."));
  }
}

function listen() {
  const on = (/** @type {string} */ id, /** @type {() => unknown} */ act) =>
    element(id, HTMLElement).addEventListener("click", () => void act());
  const file = element("file", HTMLInputElement);
  const openFile = (/** @type {File} */ found) => void take(open(found, found.name || "What you pasted"));

  gestures.listen(frame, stage.canvas, () => state.placement, (placement) => {
    stopMoving();
    change({ placement });
  });
  for (const name of SLIDERS) {
    element(name, HTMLInputElement).addEventListener("input", ({ currentTarget }) => {
      const value = Number(/** @type {HTMLInputElement} */ (currentTarget).value);
      if (name === "clutter" || name === "noise") change({ disturbance: { ...state.disturbance, [name]: value } });
      else {
        stopMoving();
        change({ placement: { ...state.placement, [name]: value } });
      }
    });
  }
  element("invert", HTMLInputElement).addEventListener("change", ({ currentTarget }) => {
    const invert = /** @type {HTMLInputElement} */ (currentTarget).checked;
    change({ disturbance: { ...state.disturbance, invert } });
  });
  element("show-points", HTMLInputElement).addEventListener("change", ({ currentTarget }) => {
    overlay.points = /** @type {HTMLInputElement} */ (currentTarget).checked;
    loop.ask();
  });
  modelChoice.addEventListener("change", () => {
    const model = state.models.find((candidate) => nameOf(candidate) === modelChoice.value);
    if (model) useModel(model, null).catch((error) => problems.show(error));
  });
  tabs(/** @type {HTMLElement} */ (document.querySelector("[role=tablist]")), (tab) => {
    element("workbench", HTMLElement).hidden = tab === "server";
    serverView.watch(tab === "server");
    change({ tab });
  });

  listenForPictures(frame, openFile, (problem) => problems.show(problem));
  on("open-file", () => file.click());
  file.addEventListener("change", () => {
    if (file.files?.[0]) openFile(file.files[0]);
    file.value = "";
  });
  on("paste", () => take(readClipboard().then((blob) => open(blob, "What you pasted"))));
  const openCamera = camera(
    {
      dialog: element("camera", HTMLDialogElement),
      video: element("video", HTMLVideoElement),
      keep: element("camera-keep", HTMLElement),
    },
    (picture) => void take(Promise.resolve(picture), state.picture?.name === "camera" ? state.placement : {}),
    () => change({}),
  );
  on("open-camera", () => openCamera().catch((error) => problems.show(error)));
  const openPad = pad(
    {
      dialog: element("pad", HTMLDialogElement),
      ink: element("ink", HTMLCanvasElement),
      clear: element("pad-clear", HTMLElement),
      close: element("pad-close", HTMLElement),
    },
    (picture) =>
      void take(Promise.resolve(picture), state.picture?.name === "drawing" ? state.placement : { size: DRAWN_SIZE }),
  );
  on("open-pad", openPad);

  on("reset", () => {
    stopMoving();
    change({ placement: START, disturbance: { clutter: 0, noise: 0, invert: false } });
  });
  on("move", () => {
    if (state.moving !== null) return stopMoving();
    motionView.begin();
    state.moving = { home: state.placement, since: performance.now() };
    element("move", HTMLElement).setAttribute("aria-pressed", "true");
    move();
  });
  on("copy-curl", async () => {
    if (state.model === null) return;
    const url = new URL(predictPath(state.model), location.href);
    const picture = await toBase64(await stage.png());
    await copy(toCurl(url.href, picture, storedKey() !== null), "The command is copied; it sends what is on the stage.");
  });
  on("copy-link", async () => {
    if (state.picture === null) return;
    const { width, height } = stage.canvas;
    const small = shrink(await createImageBitmap(state.picture.source), Math.max(width, height));
    const url = new URL(location.href);
    url.hash = addressOf(state.picture.sample === null ? small.toDataURL("image/png") : null);
    await copy(url.href, "The link is copied.");
  });
  on("record", record);
}

function record() {
  const button = element("record", HTMLButtonElement);
  const link = element("recording", HTMLAnchorElement);
  if (recorder.on) recorder.end();
  else {
    URL.revokeObjectURL(link.href);
    link.hidden = true;
    try {
      recorder.begin((film) => {
        link.href = URL.createObjectURL(film);
        link.download = `stn-serve.${film.type.split("/")[1]}`;
        link.hidden = false;
      });
      loop.ask();
    } catch (error) {
      problems.show(error);
    }
  }
  button.setAttribute("aria-pressed", String(recorder.on));
  button.textContent = recorder.on ? "Stop recording" : "Record";
}

listen();
void begin();
