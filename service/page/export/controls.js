/** The buttons that copy a command or a link, or record a video. @module */

import { predictQuery, Problem, storedKey } from "../lib/api.js";
import { shrink } from "../lib/canvas.js";
import { element } from "../lib/dom.js";
import { toBase64, toCurl } from "./share.js";

/** @param {import("../workbench.js").Workbench} workbench */
export function offerToTake(workbench) {
  const { state, stage, problems, recorder } = workbench;
  const taken = element("taken", HTMLElement);

  const copy = async (/** @type {string} */ text, /** @type {string} */ said) => {
    try {
      await navigator.clipboard.writeText(text);
      taken.textContent = said;
    } catch {
      problems.show(new Problem("The browser does not let this page copy.", "Open it by https, or on localhost."));
    }
  };

  element("copy-curl", HTMLButtonElement).addEventListener("click", async () => {
    if (state.model === null) return;
    const url = new URL(`predict?${predictQuery(state.model)}`, location.href);
    const picture = await toBase64(await stage.encode("image/png"));
    await copy(toCurl(url.href, picture, storedKey() !== null), "The command is copied; it sends what is on the stage.");
  });

  element("copy-link", HTMLButtonElement).addEventListener("click", async () => {
    if (state.picture === null) return;
    const side = Math.max(stage.canvas.width, stage.canvas.height);
    const picture = state.picture.sample === null ? shrink(state.picture.source, side).toDataURL("image/png") : null;
    const url = new URL(location.href);
    url.hash = workbench.address(picture);
    await copy(url.href, "The link is copied.");
  });

  const button = element("record", HTMLButtonElement);
  const link = element("recording", HTMLAnchorElement);
  const keep = (/** @type {Blob} */ film) => {
    link.href = URL.createObjectURL(film);
    link.download = `stn-serve.${film.type.split("/")[1]}`;
    link.hidden = false;
  };
  button.addEventListener("click", () => {
    if (recorder.on) recorder.end();
    else {
      URL.revokeObjectURL(link.href);
      link.hidden = true;
      try {
        recorder.begin(keep);
        workbench.loop.ask();
      } catch (error) {
        problems.show(error);
      }
    }
    button.setAttribute("aria-pressed", String(recorder.on));
    button.textContent = recorder.on ? "Stop recording" : "Record";
  });
}
