// A handle that is dragged or moved by keys: a slider to screen readers.

import { make, setAttribute } from "./dom.js";

/** A handle on a track. Its position is a value of the caller. */
export class Handle {
  /**
   * @param {string} label What the handle sets.
   * @param {object} options `kind` (class), `track()` (the element along which it moves), `range()`
   *     ([least, most]), `steps()` ({arrow, page}: how far keys move it, with shift a fifth), `text(value)`,
   *     and `move(value, isDone)` (called while it moves).
   */
  constructor(label, options) {
    this.options = options;
    this.value = 0;
    this.isDragged = false;
    this.node = make("div", { class: `handle ${options.kind}`, role: "slider", tabindex: "0", "aria-label": label });
    this.node.addEventListener("pointerdown", (event) => this.grab(event));
    this.node.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show a value. */
  set(value) {
    const [least, most] = this.options.range();
    this.value = value;
    setAttribute(this.node, "aria-valuemin", round(least));
    setAttribute(this.node, "aria-valuemax", round(most));
    setAttribute(this.node, "aria-valuenow", round(value));
    setAttribute(this.node, "aria-valuetext", this.options.text(value));
  }

  /** Follow the pointer until it is released. */
  grab(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.node.focus({ preventScroll: true });
    const track = this.options.track();
    track.setPointerCapture(event.pointerId);
    this.isDragged = true;
    const follow = (moved) => this.#move(this.#valueAt(moved.clientX, track), false);
    const release = (last) => {
      track.removeEventListener("pointermove", follow);
      track.removeEventListener("pointerup", release);
      track.removeEventListener("pointercancel", release);
      this.isDragged = false;
      this.#move(last.type === "pointerup" ? this.#valueAt(last.clientX, track) : this.value, true);
    };
    track.addEventListener("pointermove", follow);
    track.addEventListener("pointerup", release);
    track.addEventListener("pointercancel", release);
    follow(event);
  }

  #valueAt(clientX, track) {
    const box = track.getBoundingClientRect();
    const [least, most] = this.options.range();
    return least + ((clientX - box.left) / box.width) * (most - least);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [least, most] = this.options.range();
    const steps = this.options.steps();
    const [arrow, page] = event.shiftKey ? [steps.arrow / 5, steps.page / 5] : [steps.arrow, steps.page];
    const moves = {
      ArrowLeft: this.value - arrow,
      ArrowDown: this.value - arrow,
      ArrowRight: this.value + arrow,
      ArrowUp: this.value + arrow,
      PageDown: this.value - page,
      PageUp: this.value + page,
      Home: least,
      End: most,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#move(moves[event.key], true);
  }

  #move(value, isDone) {
    const [least, most] = this.options.range();
    this.value = Math.min(most, Math.max(least, value));
    this.options.move(this.value, isDone);
  }
}

function round(value) {
  return Math.round(value * 1000) / 1000;
}
