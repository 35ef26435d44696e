// Networks that have to be downloaded first: what they are, and a button for each.

import { post } from "./api.js";
import { button, keepRows, make, setText, show } from "./dom.js";
import { Problem } from "./problems.js";
import { sizeText } from "./words.js";

const BUSY = ["waiting", "running"];

/** Return the networks that a restorer or a detector still needs. */
export function missingWeights(state, choice) {
  const missing = choice?.missing ?? [];
  return state.weights.filter((weight) => missing.includes(weight.id) && !weight.is_here);
}

/** The boxes of missing networks. */
export class Weights {
  /**
   * @param {Element} node The element for the boxes.
   * @param {Store} store The state of the page.
   */
  constructor(node, store) {
    this.node = node;
    this.store = store;
  }

  /** Show the boxes of what a choice needs. */
  update(choice) {
    const missing = missingWeights(this.store.state, choice);
    show(this.node, missing.length > 0);
    keepRows(this.node, missing, (weight) => weight.id, (weight) => this.#box(weight));
  }

  #box(first) {
    const title = make("p", { class: "row-title" });
    const text = make("p", {});
    const size = make("dd", {});
    const license = make("dd", {});
    const facts = make("dl", { class: "facts" }, make("dt", { text: "Size" }), size, make("dt", { text: "License" }), license);
    const problem = new Problem();
    const progressText = make("span", { class: "quiet" });
    const bar = make("progress", { max: 1, "aria-label": "Download" });
    const load = button("Download", () => this.#load(first.id, problem), { picture: "download", kind: "primary" });
    const node = make("div", { class: "weights" }, title, text, facts, load, progressText, bar, problem.node);
    const update = (weight) => {
      const { job } = weight;
      const isBusy = BUSY.includes(job?.state);
      setText(title, weight.title);
      setText(text, weight.text);
      setText(size, weight.bytes ? sizeText(weight.bytes) : "not known before the download");
      setText(license, weight.license);
      show(load, !isBusy && !this.store.state.offline);
      setText(load.querySelector("span"), job?.state === "failed" ? "Try again" : "Download");
      load.setAttribute("aria-label", `${load.textContent} ${weight.title}`);
      if (job?.state === "failed") problem.set(job.error);
      show(bar, isBusy);
      if (isBusy && typeof job.share === "number") bar.value = job.share;
      else bar.removeAttribute("value");
      const offline = this.store.state.offline ? "The program was started without access to the network, so it downloads nothing." : "";
      setText(progressText, isBusy ? job.text || "Downloading" : offline);
    };
    return { node, update };
  }

  async #load(id, problem) {
    await problem.attempt(() => post(`/api/weights/${id}/fetch`));
    await this.store.refresh();
  }
}
