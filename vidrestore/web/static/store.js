// What the server says, which video this tab shows, and choices on their way to the server.

import { ApiError, get, post } from "./api.js";

const ACTIVE_MS = 1000;
const IDLE_MS = 4000;
const GONE_MS = 2000;
const TYPING_MS = 300;
const SELECTED = "vidrestore-video";
const BUSY = new Set(["waiting", "running", "pausing"]);

/** The state of the page. Sends `change` when something changed. */
export class Store extends EventTarget {
  #timer = null;
  #poll = null;
  #isAskedAgain = false;
  #unsent = new Map();
  #selected = sessionStorage.getItem(SELECTED);

  /** What the server said last; null before its first answer. */
  state = null;

  /** Why the server cannot be asked: null, "gone", or a sentence of the server. */
  trouble = null;

  /** The restoration that the player shows; null: that of the video. */
  opened = null;

  /** Begin to ask the server. */
  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#stop() : this.refresh()));
    return this.refresh();
  }

  /** Ask the server now. Requests never overlap: a second one waits for the first. */
  refresh() {
    this.#stop();
    if (this.#poll) {
      this.#isAskedAgain = true;
      return this.#poll;
    }
    this.#poll = this.#ask().finally(() => {
      this.#poll = null;
      if (!document.hidden) this.#timer = setTimeout(() => this.refresh(), this.#pause());
    });
    return this.#poll;
  }

  async #ask() {
    do {
      this.#isAskedAgain = false;
      // After a trouble everything is asked for: it may be another program that answers.
      const since = this.state && !this.trouble ? `?since=${this.state.version}` : "";
      try {
        const state = await get(`/api/state${since}`);
        const isNew = state !== null || this.trouble !== null;
        this.trouble = null;
        if (state !== null) this.state = state;
        if (isNew) this.changed();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const trouble = error.status === 401 || error.status === 403 ? error.message : "gone";
        if (trouble !== this.trouble) {
          this.trouble = trouble;
          this.changed();
        }
      }
    } while (this.#isAskedAgain && !this.trouble);
  }

  #stop() {
    clearTimeout(this.#timer);
  }

  #pause() {
    if (this.trouble) return GONE_MS;
    return this.isBusy ? ACTIVE_MS : IDLE_MS;
  }

  /** Tell everyone that something changed. */
  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Whether the server works on something. */
  get isBusy() {
    if (!this.state) return true;
    const { videos, restorations, weights } = this.state;
    const jobs = [
      ...videos.flatMap((video) => [video.analysis, video.estimate, video.moment, video.proxy]),
      ...restorations.flatMap((each) => [each, each.result_proxy, each.source_proxy]),
      ...weights.map((weight) => weight.job),
    ];
    return jobs.some((job) => job && BUSY.has(job.state));
  }

  /** The video that this tab shows; null if there is none. */
  get video() {
    const videos = this.state?.videos ?? [];
    return videos.find((video) => video.id === this.#selected) ?? videos.at(-1) ?? null;
  }

  /** Show a video. */
  select(id) {
    this.#selected = id;
    this.opened = null;
    sessionStorage.setItem(SELECTED, id);
    this.changed();
  }

  /** Show a restoration in the player. */
  open(id) {
    const restoration = this.state.restorations.find((each) => each.id === id);
    const isHere = this.state.videos.some((video) => video.id === restoration?.video);
    if (isHere) this.select(restoration.video);
    this.opened = id;
    this.changed();
  }

  /** Return the choices of a video as the user sees them: also those that are on their way. */
  choices(video) {
    return { ...video.choices, ...this.#unsent.get(video.id)?.part };
  }

  /**
   * Change choices of a video. They are sent together a moment later.
   *
   * @param {object} video The video.
   * @param {object} part The changed choices.
   * @param {Problem} problem Where to say that the server refused them.
   */
  choose(video, part, problem) {
    const unsent = this.#unsent.get(video.id) ?? { part: {} };
    clearTimeout(unsent.timer);
    Object.assign(unsent.part, part);
    unsent.timer = setTimeout(() => this.#send(video.id, problem), TYPING_MS);
    this.#unsent.set(video.id, unsent);
    this.changed();
  }

  /** Send choices that wait; for what needs them on the server. */
  async settle(problem) {
    await Promise.all([...this.#unsent.keys()].map((id) => this.#send(id, problem)));
  }

  /** Send the choices of a video that wait, after those that are being sent. */
  #send(id, problem) {
    const unsent = this.#unsent.get(id);
    if (!unsent) return null;
    clearTimeout(unsent.timer);
    unsent.sent = (unsent.sent ?? Promise.resolve()).then(() => this.#sendNow(id, unsent, problem));
    return unsent.sent;
  }

  async #sendNow(id, unsent, problem) {
    const video = this.state.videos.find((each) => each.id === id);
    if (!video || !Object.keys(unsent.part).length) return;
    const part = { ...unsent.part };
    await problem.attempt(() => post(`/api/videos/${id}/choices`, part));
    await this.refresh();
    // What was changed since then stays on its way.
    for (const name of Object.keys(part)) if (Object.is(unsent.part[name], part[name])) delete unsent.part[name];
    if (!Object.keys(unsent.part).length) this.#unsent.delete(id);
    this.changed();
  }
}
