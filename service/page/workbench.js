/** The state of the page: inputs change it, the stage draws it, the service answers, and the views show the answer. @module */

import { Recorder } from "./export/recorder.js";
import { fromDataUrl, fromHash, toHash } from "./export/share.js";
import { open } from "./inputs/files.js";
import { listSamples, openSample, showSample } from "./inputs/samples.js";
import { listModels, predict } from "./lib/api.js";
import { toBmp } from "./lib/bmp.js";
import { contextOf, sizeOf } from "./lib/canvas.js";
import { element } from "./lib/dom.js";
import { nameOf, percent } from "./lib/format.js";
import { LatestOnly, Rate } from "./lib/latest.js";
import { Overlay } from "./stage/overlay.js";
import { path, START, within } from "./stage/placement.js";
import { Stage } from "./stage/stage.js";
import { CompareView, offer } from "./views/compare.js";
import { ErrorBanner } from "./views/errors.js";
import { FullSizeView } from "./views/full.js";
import { LiveView } from "./views/live.js";
import { MotionView } from "./views/motion.js";
import { PredictionView, decode, looksOf, showsEach } from "./views/prediction.js";

/** @typedef {import("./types.js").Answer} Answer */
/** @typedef {import("./types.js").ModelInfo} ModelInfo */
/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {import("./types.js").Placement} Placement */
/** @typedef {{model: ModelInfo | null, picture: Picture | null, placement: Placement,
 *   disturbance: import("./types.js").Disturbance, tab: string, moving: {home: Placement, since: number} | null}} State */

const QUIET_MS = 900;
/** How long an answer must stay the same before it is announced and the address is updated. */
const FIRST_SAMPLE = 3;
const LARGEST = 2048;
/** Longest side of the stage that is sent for the rectified picture in full size. */

export class Workbench {
  /** @param {(state: State) => void} onChange shows the state on the controls */
  constructor(onChange) {
    this.onChange = onChange;
    this.stage = new Stage(element("stage", HTMLCanvasElement));
    this.overlay = new Overlay(element("overlay", SVGSVGElement));
    this.modelChoice = element("model", HTMLSelectElement);
    this.samples = element("samples", HTMLDivElement);
    this.spoken = element("spoken", HTMLParagraphElement);
    this.answerView = new PredictionView();
    this.fullView = new FullSizeView();
    this.liveView = new LiveView();
    this.motionView = new MotionView();
    this.recorder = new Recorder();
    this.rate = new Rate();
    this.loop = new LatestOnly(() => this.look());
    this.compareView = new CompareView(() => this.loop.ask());
    this.problems = new ErrorBanner(() => void this.begin());
    this.settling = 0;
    /** @type {ModelInfo[]} */
    this.models = [];
    /** @type {ModelInfo | null} */
    this.chosen = null;
    /** @type {State} */
    this.state = {
      model: null,
      picture: null,
      placement: START,
      disturbance: { clutter: 0, noise: 0, invert: false },
      tab: "look",
      moving: null,
    };
  }

  /**
   * Change the state, draw it and ask the service again. Nothing else changes the state.
   * @param {Partial<State>} patch
   */
  change(patch) {
    const { state } = this;
    Object.assign(state, patch);
    if (state.picture !== null) this.stage.draw(state.picture, state.placement, state.disturbance);
    this.onChange(state);
    this.fullView.clear();
    this.loop.ask();
  }

  /** Ask the service about the present content of the stage. */
  async look() {
    const { model, picture, tab } = this.state;
    if (model === null || picture === null || tab === "server") return;
    const pixels = this.stage.pixels();
    try {
      if (tab === "compare") this.overlay.show(pixels, await this.compareView.look(toBmp(pixels), pixels));
      else await this.lookWith(model, pixels);
      this.problems.answered();
    } catch (error) {
      this.problems.show(error, () => this.loop.ask());
    }
  }

  /**
   * @param {ModelInfo} model
   * @param {ImageData} pixels
   */
  async lookWith(model, pixels) {
    const live = this.state.picture?.source instanceof HTMLVideoElement;
    if (!live) this.liveView.end();
    const { answer, roundTrip } = live
      ? await this.liveView.predict(model, pixels, this.stage.encode("image/jpeg"))
      : await predict(model, toBmp(pixels));
    const looks = looksOf(answer, model.transforms[0].kind);
    const image = await decode(answer);
    this.overlay.show(pixels, looks);
    this.answerView.show(answer, looks, image, pixels, roundTrip, this.rate.count(performance.now()));
    if (this.state.moving !== null) this.motionView.add(pixels, pixelsOf(this.answerView.rectified));
    this.recorder.frame(this.stage.canvas, this.answerView.rectified, answer.corners);
    this.settle(answer);
  }

  /** @param {Answer} answer announced and put into the address once it no longer changes */
  settle(answer) {
    clearTimeout(this.settling);
    this.settling = window.setTimeout(() => {
      const [best] = answer.predictions;
      this.spoken.textContent = `${best.label}, ${percent(best.probability)}. ${this.answerView.words.textContent}`;
      history.replaceState(null, "", `#${this.address(null)}`);
      const { model, picture, placement, disturbance } = this.state;
      if (model === null || picture === null || showsEach(answer)) return; // /rectify answers with a single picture
      void this.fullView.show(model, enlarged(model.input, picture, placement, disturbance).encode("image/png"));
    }, QUIET_MS);
  }

  /**
   * The content of the stage as the fragment of an address.
   * @param {string | null} picture as a data URL, if it is no sample
   */
  address(picture) {
    const { model, placement, disturbance } = this.state;
    if (model === null) return "";
    const sample = this.state.picture?.sample ?? null;
    return toHash({ model: model.name, version: model.version, sample, picture, placement, disturbance });
  }

  /**
   * Show another picture.
   * @param {Promise<Picture>} coming
   * @param {Partial<Placement>} [placement]
   */
  async take(coming, placement = {}) {
    try {
      const picture = await coming;
      this.problems.hide();
      this.change({ picture, placement: within({ ...START, ...placement }), moving: null });
    } catch (error) {
      this.problems.show(error);
    }
  }

  /**
   * Select a model. If the picture is a sample of another model, one of its own samples replaces it.
   * @param {ModelInfo} model
   * @param {string | null} sample to begin with
   */
  async use(model, sample) {
    /** @type {Partial<State>} */
    const patch = { model, moving: null };
    this.chosen = model;
    if (model.name !== this.state.model?.name) {
      const names = await listSamples(model.name);
      const first = names[Math.min(FIRST_SAMPLE, names.length - 1)];
      const wanted = sample !== null && names.includes(sample) ? sample : first;
      const own = this.state.picture !== null && this.state.picture.sample === null;
      if (!own && wanted !== undefined) {
        Object.assign(patch, { picture: await openSample(model.name, wanted), placement: START });
      }
      if (model !== this.chosen) return; // another model was selected meanwhile
      this.offerSamples(model, names);
    }
    this.stage.fit(model.input);
    this.modelChoice.value = nameOf(model);
    this.compareView.begin(model);
    element("calibration", HTMLElement).textContent =
      model.temperature === 1 ? "probabilities" : "calibrated probabilities";
    this.change(patch);
  }

  /**
   * @param {ModelInfo} model
   * @param {string[]} names of its samples
   */
  offerSamples(model, names) {
    this.samples.replaceChildren(
      ...names.map((name) => {
        const button = document.createElement("button");
        const image = showSample(model.name, name);
        button.type = "button";
        button.dataset.sample = name;
        button.title = image.alt = name.replace(/\.\w+$/, "");
        button.append(image);
        button.addEventListener("click", () => void this.take(openSample(model.name, name)));
        return button;
      }),
    );
  }

  /** Start or stop the motion of the picture. */
  toggleMotion() {
    if (this.state.moving !== null) return this.change({ moving: null });
    this.motionView.begin();
    this.change({ moving: { home: this.state.placement, since: performance.now() } });
    this.step();
  }

  step() {
    const { moving } = this.state;
    if (moving === null) return;
    if (!this.loop.busy) this.change({ placement: path(moving.home, (performance.now() - moving.since) / 1000) });
    requestAnimationFrame(() => this.step());
  }

  /** Load the models and the content that the address describes. */
  async begin() {
    try {
      Object.assign(this.state, { model: null, picture: null, moving: null });
      this.models = await listModels();
      this.problems.hide();
      offer(this.modelChoice, this.models);
      this.compareView.offer(this.models);
      const shared = fromHash(location.hash);
      const model = this.models.find(({ name, version }) => name === shared?.model && version === shared.version);
      const used = model ?? this.models.find((candidate) => candidate.default);
      if (used === undefined) return;
      await this.use(used, shared?.sample ?? null);
      if (shared === null || model === undefined) return;
      if (shared.picture !== null) await this.take(open(fromDataUrl(shared.picture), "the shared picture"));
      this.change({ placement: shared.placement, disturbance: shared.disturbance });
    } catch (error) {
      this.problems.show(error, () => void this.begin());
    }
  }
}

/**
 * The content of the stage in the resolution of the picture, without noise.
 * @param {ModelInfo["input"]} input
 * @param {Picture} picture
 * @param {Placement} placement
 * @param {import("./types.js").Disturbance} disturbance
 */
function enlarged(input, picture, placement, disturbance) {
  const stage = new Stage(document.createElement("canvas"));
  const { width, height } = sizeOf(picture.source);
  const most = LARGEST / Math.max(input.width, input.height);
  const scale = Math.min(most, Math.max(1, width / input.width, height / input.height));
  stage.fit({ ...input, width: Math.round(input.width * scale), height: Math.round(input.height * scale) });
  stage.draw(picture, placement, { ...disturbance, noise: 0 });
  return stage;
}

/** @param {HTMLCanvasElement} canvas */
function pixelsOf(canvas) {
  return contextOf(canvas).getImageData(0, 0, canvas.width, canvas.height);
}
