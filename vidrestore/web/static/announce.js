// What screen readers hear: beginnings, ends and quarters, not every second.

import { setText } from "./dom.js";

const QUIET_MS = 12000;

/** Says progress politely. */
export class Announcer {
  #node;
  #said = new Map();
  #lastMs = 0;

  /** @param {Element} node An element with role="status". */
  constructor(node) {
    this.#node = node;
  }

  /** Say a sentence. */
  say(sentence) {
    this.#lastMs = performance.now();
    setText(this.#node, sentence);
  }

  /** Say what is news in the state of the page. */
  followAll({ videos, restorations, weights }) {
    for (const video of videos) {
      const { id, name, analysis, found, moment, proxy } = video;
      this.follow(`analysis ${id}`, name, analysis && { ...analysis, text: found?.sentence ?? analysis.text });
      this.follow(`moment ${id}`, "The moment", moment && { ...moment, text: moment.text || "The moment can be seen." });
      this.follow(`proxy ${id}`, name, proxy);
    }
    for (const each of restorations) this.follow(`restoration ${each.id}`, each.name, each);
    for (const weight of weights) this.follow(`weight ${weight.id}`, weight.title, weight.job);
  }

  /**
   * Say how a job goes, if that is news.
   *
   * @param {string} key What identifies the job.
   * @param {string} name What it works on.
   * @param {object|null} job Its state, text and share.
   */
  follow(key, name, job) {
    if (!job) return;
    const quarter = Math.floor((job.share ?? 0) * 4);
    const news = `${job.state} ${job.state === "running" ? quarter : ""}`;
    const before = this.#said.get(key);
    if (before === news) return;
    const isFirst = before === undefined;
    const isProgress = job.state === "running" && before?.startsWith("running");
    if (isProgress && performance.now() - this.#lastMs < QUIET_MS) return;
    this.#said.set(key, news);
    // What was over when the page was opened is no news.
    if (isFirst && (job.state === "done" || job.state === "failed" || job.state === "paused")) return;
    this.say(`${name}: ${job.error || job.text || job.state}`);
  }
}
