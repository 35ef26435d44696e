// Two seconds of the video, before and after, as a loop: it shows what a still hides, such as flicker.

import { post } from "./api.js";
import { setAttribute, setIcon, setText, show } from "./dom.js";
import { Pair } from "./pair.js";
import { Problem } from "./problems.js";
import { counted, timeText } from "./words.js";

const BUSY = ["waiting", "running"];

/** The loop of a moment. */
export class Moment {
  #made = "";
  #isPaused = matchMedia("(prefers-reduced-motion: reduce)").matches;
  #isAsked = false;
  #isUnknown = false;

  /**
   * @param {Store} store The state of the page.
   * @param {Player} player The player.
   */
  constructor(store, player) {
    this.store = store;
    this.player = player;
    this.node = document.getElementById("moment");
    this.videos = [document.getElementById("loop-before"), document.getElementById("loop-after")];
    this.stills = [document.getElementById("loop-still-before"), document.getElementById("loop-still-after")];
    this.pair = new Pair(...this.videos, { isLoop: true });
    this.button = document.getElementById("moment-show");
    this.pauseButton = document.getElementById("loop-pause");
    this.problem = new Problem();
    document.getElementById("moment-text").after(this.problem.node);
    this.button.addEventListener("click", () => this.#make());
    this.pauseButton.addEventListener("click", () => {
      this.#isPaused = this.pair.isPlaying;
      this.pair.toggle();
    });
    this.pair.addEventListener("play", () => this.#showPlaying());
    for (const video of this.videos) video.addEventListener("canplay", () => this.#begin());
    for (const still of this.stills) still.addEventListener("error", () => this.#cannotShow(still));
    store.addEventListener("change", () => this.update());
    player.pair.addEventListener("time", () => this.#showButton());
  }

  async #make() {
    const { video } = this.store;
    this.#isAsked = true;
    this.#showButton();
    const at = video.is_picture ? 0 : Math.round(this.player.pair.time * 1000) / 1000;
    await this.problem.attempt(async () => {
      await this.store.settle(this.problem);
      await post(`/api/videos/${video.id}/moment`, { at_seconds: at });
    });
    await this.store.refresh();
    this.#isAsked = false;
    this.update();
  }

  /** Show what the state says. */
  update() {
    const { video } = this.store;
    show(this.node, video !== null && this.player.subject?.video === video);
    if (!video) return;
    const { moment, found } = video;
    const isHere = Boolean(moment?.state === "done" && moment.before && moment.after);
    const isPicture = video.is_picture === true;
    const isBusy = BUSY.includes(moment?.state);
    this.#load(isHere ? moment : null, isPicture);
    if (found?.width) this.node.style.setProperty("--aspect", found.width / found.height);
    this.node.classList.toggle("is-made", isHere);
    this.node.classList.toggle("is-old", isHere && moment.is_current === false);
    show(this.pauseButton, isHere && !isPicture);
    setText(document.getElementById("moment-title"), isPicture ? "Before and after" : "A moment, before and after");
    setText(document.getElementById("moment-text"), this.#text(video, isHere, isBusy));
    if (moment?.state === "failed") this.problem.set(moment.error);
    const bar = document.getElementById("moment-bar");
    show(bar, isBusy);
    if (isBusy && moment.share !== null && moment.share !== undefined) bar.value = moment.share;
    else if (isBusy) bar.removeAttribute("value");
    this.#showButton();
  }

  #text({ moment, is_picture: isPicture }, isHere, isBusy) {
    if (isBusy) return moment.text || "The moment is being restored.";
    if (!isHere && isPicture) return "The picture above, restored as you chose.";
    if (!isHere) return "Two seconds of the picture above, restored as you chose. They play as a loop, which also shows what a still picture hides, such as flicker.";
    const faces = typeof moment.faces === "number" ? counted(moment.faces, "face") : "";
    const where = [isPicture ? "" : `From ${timeText(moment.at_seconds)}`, faces].filter(Boolean).join(", ");
    const notes = [where && `${where}.`, ...(moment.notes ?? [])];
    if (this.#isUnknown) notes.push("This browser cannot show this kind of picture.");
    if (moment.is_current === false) notes.push("You chose something else since; show it again to see that.");
    return notes.filter(Boolean).join(" ");
  }

  #showButton() {
    const { video } = this.store;
    if (!video) return;
    const isBusy = this.#isAsked || BUSY.includes(video.moment?.state);
    this.button.disabled = isBusy || !video.found?.people.length;
    const label = video.is_picture ? "Show before and after" : `Show this moment (${timeText(this.player.pair.time)})`;
    setText(this.button.querySelector("span"), label);
  }

  #load(moment, isPicture) {
    const made = moment ? `${moment.before} ${moment.after}` : "";
    if (made === this.#made) return;
    this.#made = made;
    this.#isUnknown = false;
    this.pair.pause();
    const urls = moment ? [moment.before, moment.after] : [null, null];
    this.videos.forEach((video, at) => {
      setAttribute(video, "src", isPicture ? null : urls[at]);
      video.load();
      show(video, !isPicture);
      const still = this.stills[at];
      setAttribute(still, "src", isPicture ? urls[at] : null);
      show(still, isPicture);
    });
    this.#showPlaying();
  }

  #cannotShow(still) {
    if (!still.hasAttribute("src")) return;
    show(still, false);
    this.#isUnknown = true;
    this.update();
  }

  #begin() {
    const isReady = this.videos.every((video) => video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA);
    if (!isReady || this.pair.isPlaying) return;
    this.pair.use(this.videos[1], this.videos[0]);
    if (!this.#isPaused) this.pair.play();
  }

  #showPlaying() {
    const label = this.pair.isPlaying ? "Pause the loop" : "Play the loop";
    setIcon(this.pauseButton, this.pair.isPlaying ? "pause" : "play");
    setAttribute(this.pauseButton, "aria-label", label);
    setAttribute(this.pauseButton, "title", label);
  }
}
