// Errors beside the control that they belong to.

import { ApiError } from "./api.js";
import { make, setText, show } from "./dom.js";

/** A line for an error, which screen readers read at once. */
export class Problem {
  constructor() {
    this.node = make("p", { class: "problem", role: "alert", hidden: true });
  }

  /** Show a sentence; an empty one hides the line. */
  set(sentence) {
    show(this.node, Boolean(sentence));
    setText(this.node, sentence ?? "");
  }

  /**
   * Do something; show here why it failed.
   *
   * @param {function} work What to do.
   * @returns {Promise} Its result; null if it failed.
   */
  async attempt(work) {
    this.set("");
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.set(error.message);
      return null;
    }
  }
}
