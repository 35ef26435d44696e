// The people of the video: who is restored, and what they are called.

import { post } from "./api.js";
import { keepHeight, keepRows, make, setAttribute, setText, setValue, show } from "./dom.js";
import { facesOf } from "./estimate.js";
import { Problem } from "./problems.js";
import { colorOf } from "./timeline.js";
import { counted, durationText, personName } from "./words.js";

const GONE = "The file is no longer there, has changed, or its disk is not connected.";
const BUSY = ["waiting", "running"];
const SHORT_SECONDS = 0.95;

/** The cards of the people. */
export class People {
  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    const at = (id) => document.getElementById(id);
    this.cards = at("people");
    this.problem = new Problem();
    at("look-again").before(this.problem.node);
    at("people-all").addEventListener("click", () => this.#choose(null));
    at("people-none").addEventListener("click", () => this.#choose([]));
    at("look-again").addEventListener("click", () => this.#lookAgain());
    store.addEventListener("change", () => this.update());
  }

  #choose(people) {
    this.store.choose(this.store.video, { people }, this.problem);
  }

  /** Show what the state says. */
  update() {
    const { video } = this.store;
    if (!video) return;
    const { analysis, found } = video;
    const isGone = video.is_there === false;
    const isBusy = BUSY.includes(analysis?.state);
    const people = found?.people ?? [];
    const chosen = this.store.choices(video).people;
    setText(document.getElementById("people-text"), isBusy ? analysis.text || "Looking for faces" : (found?.sentence ?? ""));
    const bar = document.getElementById("people-bar");
    show(bar, isBusy);
    if (isBusy && typeof analysis.share === "number") bar.value = analysis.share;
    else bar.removeAttribute("value");
    const failed = analysis?.state === "failed" ? analysis.error : isGone ? GONE : null;
    if (failed) this.problem.set(failed);
    else if (isBusy) this.problem.set("");
    show(document.getElementById("look-again"), Boolean(failed));
    show(document.getElementById("people-which"), people.length > 1);
    document.getElementById("people-all").disabled = chosen === null;
    document.getElementById("people-none").disabled = chosen?.length === 0;
    keepHeight(this.cards, isBusy && !found);
    keepRows(this.cards, people, (person) => `${video.id} ${person.id}`, (person) => this.#card(person));
  }

  #card(first) {
    let person = first;
    const box = make("input", { type: "checkbox" });
    const picture = make("img", { alt: "", width: 64, height: 64 });
    const name = make("input", { type: "text", class: "name-field", maxlength: 60, autocomplete: "off", spellcheck: "false" });
    const facts = make("span", { class: "quiet" });
    const label = make("span", { class: "unseen" });
    const node = make(
      "li",
      { class: "person" },
      make("label", { class: "person-pick" }, box, picture, label),
      make("div", { class: "person-words" }, name, facts),
    );
    box.addEventListener("change", () => this.#toggle(person, box.checked));
    name.addEventListener("change", () => this.#rename(person, name.value.trim()));
    name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
    const update = (now) => {
      person = now;
      const { video } = this.store;
      const choices = this.store.choices(video);
      const isSmall = now.eye_px < choices.least_eye_px;
      box.checked = choices.people?.includes(now.id) ?? true;
      setAttribute(picture, "src", now.portrait);
      setText(label, `Restore ${personName(video, now)}`);
      setAttribute(name, "aria-label", `Name of person ${now.id}`);
      setAttribute(name, "placeholder", `Person ${now.id}`);
      setValue(name, video.names[now.id] ?? "");
      const size = isSmall ? ", too small" : "";
      const faces = now.appearances.length ? counted(Math.round(facesOf(now)), "face") : "";
      const length = now.seconds < SHORT_SECONDS ? "under 1 s" : durationText(now.seconds);
      const time = video.is_picture ? "" : `${length} on screen`;
      setText(facts, [time, faces].filter(Boolean).join(", ") + size);
      setAttribute(node, "data-color", colorOf(now));
      node.classList.toggle("is-off", !box.checked || isSmall);
    };
    return { node, update };
  }

  async #lookAgain() {
    const { video } = this.store;
    await this.problem.attempt(() => post(`/api/videos/${video.id}/analyze`));
    await this.store.refresh();
  }

  #toggle(person, isChosen) {
    const { video } = this.store;
    const all = video.found.people.map((each) => each.id);
    const before = this.store.choices(video).people ?? all;
    const people = all.filter((id) => (id === person.id ? isChosen : before.includes(id)));
    this.#choose(people.length === all.length ? null : people);
  }

  async #rename(person, name) {
    const { video } = this.store;
    await this.problem.attempt(() => post(`/api/videos/${video.id}/names`, { person: person.id, name }));
    await this.store.refresh();
  }
}
