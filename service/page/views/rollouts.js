/** Versions that are rolled out, compared with the default version as the metrics of all workers have it. @module */

import { make } from "../lib/dom.js";
import { percent } from "../lib/format.js";
import { mean, Reading } from "../lib/prometheus.js";

const PICTURES = "stn_rollout_pictures_total";

/**
 * A table row for each version that is or was rolled out.
 * @param {Reading} now
 * @returns {HTMLElement[]}
 */
export function rolloutRows(now) {
  const found = new Map();
  for (const { labels } of now.of(PICTURES, {})) {
    const { model, version, default: beside } = labels;
    found.set(`${model}/${version} ${beside}`, { model, version, default: beside });
  }
  return [...found.values()].map((labels) => row(now, labels));
}

/**
 * @param {Reading} now
 * @param {{model: string, version: string, default: string}} labels
 */
function row(now, labels) {
  const pictures = now.sum(PICTURES, labels);
  const classified = now.sum("stn_rollout_probability_change_count", labels);
  const change = mean(now, now, "stn_rollout_probability_change", labels);
  const corners = mean(now, now, "stn_rollout_corner_distance_pixels", labels);
  const [old, young] = ["default", "version"].map((by) => mean(now, now, "stn_rollout_inference_seconds", { ...labels, by }));
  const cells = [
    `${labels.model}/${labels.default}`,
    pictures.toLocaleString("en"),
    classified === 0 ? "–" : percent(now.sum(PICTURES, { ...labels, agrees: "true" }) / classified),
    change === null ? "–" : percent(change),
    corners === null ? "–" : `${corners.toFixed(1)} px`,
    old === null || young === null ? "–" : `${(young * 1000).toFixed(2)} ms, not ${(old * 1000).toFixed(2)} ms`,
    now.sum("stn_rollout_dropped_total", labels).toLocaleString("en"),
  ];
  const made = document.createElement("tr");
  const head = make("th", `${labels.model}/${labels.version}`);
  head.setAttribute("scope", "row");
  made.append(head, ...cells.map((text) => make("td", text)));
  return made;
}
