// The kind of video: a card for each.

import { keepRows, make, setText } from "./dom.js";
import { Problem } from "./problems.js";

/** The cards of the profiles. */
export class Profiles {
  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    this.cards = document.getElementById("profiles");
    this.problem = new Problem();
    this.cards.after(this.problem.node);
    store.addEventListener("change", () => this.update());
  }

  /** Show what the state says. */
  update() {
    const { state, video } = this.store;
    if (!video) return;
    const chosen = this.store.choices(video).profile;
    keepRows(this.cards, state.profiles, (profile) => profile.id, (profile) => this.#card(profile));
    for (const radio of this.cards.querySelectorAll("input")) radio.checked = radio.value === chosen;
  }

  #card(profile) {
    const radio = make("input", { type: "radio", name: "profile", value: profile.id });
    radio.addEventListener("change", () => this.store.choose(this.store.video, { profile: radio.value }, this.problem));
    const title = make("span", { class: "card-title" });
    const text = make("span", { class: "quiet" });
    const node = make("label", { class: "card" }, radio, make("span", { class: "card-words" }, title, text));
    const update = (now) => {
      setText(title, now.title);
      setText(text, now.text);
    };
    return { node, update };
  }
}
