// The bar at the bottom: how much there is to do, where it goes, and Restore.

import { ApiError, post } from "./api.js";
import { confirmed } from "./dialog.js";
import { make, setAttribute, setText, show } from "./dom.js";
import { estimated } from "./estimate.js";
import { TargetDialog } from "./folders.js";
import { Problem } from "./problems.js";
import { missingWeights } from "./weights.js";
import { counted, durationText, shortened } from "./words.js";

const BUSY = ["waiting", "running"];

/** The bar with Restore. */
export class StartBar {
  #isSending = false;
  #startedFor = null;

  /**
   * @param {Store} store The state of the page.
   * @param {Announcer} announcer Says what happens.
   */
  constructor(store, announcer) {
    this.store = store;
    this.announcer = announcer;
    const at = (id) => document.getElementById(id);
    this.button = at("restore");
    this.problem = new Problem();
    this.started = at("started");
    at("bar-problems").append(this.problem.node);
    this.dialog = new TargetDialog(store);
    at("change-target").addEventListener("click", () => this.dialog.show(store.video));
    this.button.addEventListener("click", () => this.#start());
    store.addEventListener("change", () => this.update());
  }

  /** Why nothing can be restored now; empty if it can. */
  #reason(video, choices) {
    const { state, trouble } = this.store;
    if (trouble) return trouble === "gone" ? "The program that does the work has ended." : "Open the page anew; see above.";
    if (video.is_there === false) return "The file is no longer there, or it has changed.";
    if (video.analysis?.state === "failed") return "This video cannot be restored.";
    if (!video.found) return "The faces are still being looked for.";
    if (!video.found.people.length) return "No face was found, so there is nothing to restore.";
    if (choices.people?.length === 0) return "Choose at least one person.";
    const restorer = state.restorers.find((each) => each.id === choices.restorer);
    if (missingWeights(state, restorer).length) return `“${restorer.title}” has to be downloaded first; see More.`;
    const isCounted = video.found.people.some((person) => person.appearances.length);
    if (isCounted && !estimated(video, choices).faces) return "No face is left: choose more people, smaller faces or a longer part.";
    return video.target.error ?? "";
  }

  /** Show what the state says. */
  update() {
    const { video } = this.store;
    if (!video) return;
    if (this.#startedFor !== video.id) this.started.replaceChildren();
    const choices = this.store.choices(video);
    const reason = this.#reason(video, choices);
    setText(document.getElementById("bar-estimate"), this.#estimateText(video, choices));
    // The bar stays in view, so a long name must not make it high.
    const place = this.store.state.is_local ? video.target.shown : video.target.name;
    setText(document.getElementById("bar-where"), shortened(place));
    setAttribute(document.getElementById("bar-where"), "title", place);
    setText(document.getElementById("bar-exists"), video.target.exists ? "This file exists." : "");
    setText(document.getElementById("bar-reason"), reason);
    show(document.getElementById("bar-reason"), reason !== "");
    setAttribute(this.button, "aria-disabled", reason || this.#isSending ? "true" : null);
  }

  #estimateText(video, choices) {
    if (!video.found) return video.analysis?.state === "failed" ? "No faces" : "Looking for faces";
    const { faces, seconds } = estimated(video, choices);
    const count = counted(faces, "face");
    if (video.is_picture) return count;
    if (!faces || video.estimate?.state === "failed" || video.estimate?.error) return count;
    if (seconds !== null) return `${count}, about ${durationText(seconds)} on this machine`;
    return BUSY.includes(video.estimate?.state) ? `${count}, working out the time` : count;
  }

  async #start() {
    const { video } = this.store;
    if (this.#isSending || this.#reason(video, this.store.choices(video))) {
      this.announcer.say(document.getElementById("bar-reason").textContent);
      return;
    }
    this.#isSending = true;
    this.started.replaceChildren();
    await this.problem.attempt(async () => {
      await this.store.settle(this.problem);
      const now = this.store.state.videos.find((each) => each.id === video.id) ?? video;
      if (now.target.exists && !(await this.#mayReplace(now))) return;
      await this.#send(now);
      const below = make("a", { href: "#queue", text: "See it below" });
      this.#startedFor = video.id;
      this.started.replaceChildren(`${shortened(video.name)} is in your list. `, below);
    });
    this.#isSending = false;
    await this.store.refresh();
    this.update();
  }

  async #send(video) {
    try {
      await post(`/api/videos/${video.id}/restore`, { overwrite: video.target.exists });
    } catch (error) {
      const isThere = error instanceof ApiError && error.status === 409 && error.answer.exists;
      if (!isThere || !(await this.#mayReplace(video))) throw error;
      await post(`/api/videos/${video.id}/restore`, { overwrite: true });
    }
  }

  #mayReplace(video) {
    const sentences = [`${video.target.shown} is there already. When the restoration has ended, the new video takes its place and the old file is gone.`];
    return confirmed({ title: "Replace the file?", sentences, yes: "Replace", isDangerous: true });
  }
}
