// A file in a video element: the file itself, or a copy where the browser cannot play it.

import { ApiError, post } from "./api.js";

const CANNOT = "This browser cannot play this file.";

/** A video element that asks for a copy of what the browser cannot play. */
export class Screen {
  #refused = new Map();
  #asked = new Map();
  #shown = null;
  #loaded = null;
  #resumeAt = 0;

  /**
   * @param {HTMLVideoElement} video The element.
   * @param {Store} store The state of the page.
   */
  constructor(video, store) {
    this.video = video;
    this.store = store;
    video.addEventListener("error", () => this.#failed());
    video.addEventListener("loadedmetadata", () => {
      // Sound alone is no way to show a video.
      if (!video.videoWidth) this.#refuse(this.#shown, CANNOT);
      else if (this.#resumeAt) video.currentTime = this.#resumeAt;
      this.#resumeAt = 0;
    });
    store.addEventListener("change", () => {
      if (!store.trouble && video.error && this.#shown && !this.#refused.has(this.#shown)) this.#load(this.#shown);
    });
  }

  /** The address of the file in the element; null if there is none. */
  get shown() {
    return this.#shown;
  }

  /**
   * Show a file.
   *
   * @param {string|null} url Its address; null: nothing.
   * @param {object|null} proxy The copy, as the state tells it.
   * @param {string} path Where to ask for a copy.
   * @param {object} body What to send there.
   * @returns {object|null} Why nothing is shown: {text, share, isWrong}; null if the file is shown.
   */
  show(url, proxy, path, body = {}) {
    if (!url || !this.#refused.has(url)) {
      this.#set(url);
      return null;
    }
    if (proxy?.state === "done" && !this.#refused.has(proxy.url)) {
      this.#set(proxy.url);
      return null;
    }
    this.#set(null);
    const asked = `${path} ${JSON.stringify(body)}`;
    const refusal = this.#asked.get(asked) || this.#refused.get(proxy?.url) || (proxy?.state === "failed" && proxy.error);
    if (refusal) return { text: refusal, share: null, isWrong: true };
    if (!proxy && !this.#asked.has(asked)) this.#ask(asked, path, body);
    const text = proxy?.text || "A copy that it can play is being made.";
    return { text: `This browser cannot play this kind of file. ${text}`, share: proxy?.share ?? null, isWrong: false };
  }

  async #ask(asked, path, body) {
    this.#asked.set(asked, "");
    try {
      await post(path, body);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#asked.set(asked, error.message);
    }
    await this.store.refresh();
    this.store.changed();
  }

  #set(url) {
    if (url === this.#shown) return;
    this.#shown = url;
    if (url) this.#load(url);
    else {
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  #load(url) {
    this.#resumeAt = url === this.#loaded ? this.video.currentTime : 0;
    this.#loaded = url;
    this.video.src = url;
    this.video.load();
  }

  async #failed() {
    const url = this.#shown;
    const code = this.video.error?.code;
    if (!url || code === MediaError.MEDIA_ERR_ABORTED) return;
    let response;
    try {
      response = await fetch(url, { headers: { Range: "bytes=0-0" } });
    } catch {
      await this.store.refresh(); // the server is gone; the file is loaded again once it is back
      return;
    }
    if (url !== this.#shown) return;
    if (response.ok) this.#refuse(url, CANNOT);
    else if (response.status === 404) this.#refuse(url, "The file is no longer there.");
  }

  #refuse(url, sentence) {
    this.#refused.set(url, sentence);
    this.store.changed();
  }
}
