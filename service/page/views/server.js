/** The Server tab: metrics of the service, which docs/operate/metrics.md explains. @module */

import { ask, listModels, Problem } from "../lib/api.js";
import { element, fill, make } from "../lib/dom.js";
import { nameOf, percent } from "../lib/format.js";
import { mean, parse, perSecond, Reading } from "../lib/prometheus.js";
import { rolloutRows } from "./rollouts.js";

/** @typedef {import("../types.js").ModelInfo} ModelInfo */

const EVERY_MS = 2000;
const SHIFTED = 0.25;
/** Population stability index from which the inputs are taken to have drifted. */
const NO_METRICS = new Set([401, 403, 404]);

export class ServerView {
  /** @param {(error: unknown) => void} onProblem */
  constructor(onProblem) {
    this.onProblem = onProblem;
    this.facts = element("server-facts", HTMLDListElement);
    this.note = element("server-note", HTMLParagraphElement);
    this.rows = element("model-table", HTMLTableElement).tBodies[0];
    this.rollouts = element("rollouts", HTMLElement);
    this.compared = element("rollout-table", HTMLTableElement).tBodies[0];
    this.timer = 0;
    /** @type {Reading | null} */
    this.before = null;
  }

  /**
   * Start or stop polling the metrics.
   * @param {boolean} shown
   */
  watch(shown) {
    clearTimeout(this.timer);
    this.timer = 0;
    if (shown) void this.look();
  }

  async look() {
    const timer = (this.timer = window.setTimeout(() => void this.look(), EVERY_MS));
    try {
      const [models, state, now] = await Promise.all([listModels(), readyState(), readMetrics()]);
      if (timer === this.timer) this.show(models, state, now);
    } catch (error) {
      this.onProblem(error);
    }
  }

  /**
   * @param {ModelInfo[]} models
   * @param {string} state
   * @param {Reading | null} now null where there are no metrics for this page
   */
  show(models, state, now) {
    const before = this.before ?? now;
    /** @type {[string, string][]} */
    const facts = [
      ["state", state],
      ["versions served", String(models.length)],
    ];
    if (now !== null && before !== null) {
      const requests = models.map((model) => perSecond(before, now, "stn_requests_total", labelsOf(model)));
      facts.push(
        ["requests", `${requests.reduce((sum, rate) => sum + rate, 0).toFixed(1)} /s`], // without the requests of such pages
        ["refused", `${perSecond(before, now, "stn_rejections_total", {}).toFixed(1)} /s`],
        ["waiting", String(now.sum("stn_queue_depth", {}))],
      );
    }
    fill(this.facts, facts);
    this.note.textContent = now === null ? "This service shows its metrics to others only, or has none." : "";
    this.rows.replaceChildren(...models.map((model) => row(model, before, now)));
    const compared = now === null ? [] : rolloutRows(now);
    this.compared.replaceChildren(...compared);
    this.rollouts.hidden = compared.length === 0;
    this.before = now;
  }
}

/**
 * The labels of a model's metrics.
 * @param {ModelInfo} model
 * @returns {Record<string, string>}
 */
const labelsOf = (model) => ({ model: model.name, version: String(model.version) });

/**
 * The table row of a model.
 * @param {ModelInfo} model
 * @param {Reading | null} before
 * @param {Reading | null} now
 */
function row(model, before, now) {
  const { width, height, channels } = model.input;
  const made = document.createElement("tr");
  const cells = [
    model.runtime,
    model.device,
    `${width}×${height} ${channels === 1 ? "grey" : "RGB"}`,
    model.accuracy === null
      ? "not measured"
      : `${percent(model.accuracy.accuracy)} of ${model.accuracy.pictures.toLocaleString("en")}`,
  ];
  if (now !== null && before !== null) {
    const labels = labelsOf(model);
    const latency = mean(before, now, "stn_request_duration_seconds", labels);
    cells.push(
      perSecond(before, now, "stn_requests_total", labels).toFixed(1),
      latency === null ? "–" : `${(latency * 1000).toFixed(1)} ms`,
      String(now.sum("stn_queue_depth", labels)),
      drift(now, labels),
    );
  } else cells.push("–", "–", "–", "–");
  const head = make("th", nameOf(model));
  head.setAttribute("scope", "row");
  made.append(head, ...cells.map((text) => make("td", text)));
  return made;
}

/**
 * The quantity that is furthest from the reference.
 * @param {Reading} now
 * @param {Record<string, string>} labels
 * @returns {string}
 */
function drift(now, labels) {
  const distances = now.of("stn_drift_distance", labels).filter(({ value }) => Number.isFinite(value));
  if (distances.length === 0) return "–";
  const furthest = distances.reduce((one, other) => (other.value > one.value ? other : one));
  const said = furthest.value >= SHIFTED ? "shifted" : "as in training";
  return `${said} (${furthest.labels.quantity} ${furthest.value.toFixed(2)})`;
}

/** @returns {Promise<Reading | null>} null if this page may not read the metrics */
async function readMetrics() {
  try {
    const text = await (await ask("metrics")).text();
    return new Reading(parse(text), performance.now());
  } catch (error) {
    if (error instanceof Problem && NO_METRICS.has(error.status)) return null;
    throw error;
  }
}

/** @returns {Promise<string>} */
async function readyState() {
  try {
    await ask("health/ready");
    return "ready";
  } catch (error) {
    if (error instanceof Problem && error.status === 503) return "not ready";
    throw error;
  }
}
