// The timeline: a bar for each person, cuts, the part to be restored, and the place that is shown.

import { keepHeight, keepRows, make, setAttribute, setText, setValue, show } from "./dom.js";
import { Handle } from "./handle.js";
import { Problem } from "./problems.js";
import { clockText, counted, personName, readTime, timeText } from "./words.js";

const COLORS = 8;
const DENSE_CUTS = 60; // more of them are thin lines
const MOST_LABELS = 7;
const LABEL_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const STEP_SECONDS = { arrow: 5, page: 30 };
const RANGE_STEP_SECONDS = { arrow: 0.5, page: 5 };

/** The color of a person: a number from 1 to 8, for the style. */
export function colorOf(person) {
  return ((person.id - 1) % COLORS) + 1;
}

/** The timeline of the video in the player. */
export class Timeline {
  #drawn = "";
  #seconds = 0;

  /**
   * @param {Store} store The state of the page.
   * @param {Player} player The player.
   */
  constructor(store, player) {
    this.store = store;
    this.player = player;
    const at = (id) => document.getElementById(id);
    this.node = at("timeline");
    this.tracks = at("tracks");
    this.ruler = at("ruler");
    this.problem = new Problem();
    at("range").after(this.problem.node);
    this.#buildHandles();
    at("lanes").addEventListener("pointerdown", (event) => this.#pressed(event));
    this.#connectRange();
    store.addEventListener("change", () => this.update());
    player.addEventListener("subject", () => this.update());
    player.pair.addEventListener("change", () => this.update());
    player.pair.addEventListener("time", () => this.#showTime());
  }

  #buildHandles() {
    const { pair } = this.player;
    const common = { track: () => this.ruler, range: () => [0, this.#seconds], text: timeText };
    this.playhead = new Handle("Place in the video", {
      ...common,
      kind: "playhead",
      steps: () => STEP_SECONDS,
      move: (value, isDone) => {
        this.#place(this.playhead, value);
        if (isDone) pair.seek(value);
        else pair.scrub(value);
      },
    });
    const limit = (name, label, kind) =>
      new Handle(label, {
        ...common,
        kind,
        steps: () => RANGE_STEP_SECONDS,
        move: (value, isDone) => {
          this.#place(name === "start" ? this.start : this.end, value);
          if (isDone) this.#setLimit(name, value);
          pair.scrub(value);
        },
      });
    this.start = limit("start", "Beginning of the part to be restored", "limit start");
    this.end = limit("end", "End of the part to be restored", "limit end");
    this.line = make("div", { class: "playhead-line" });
    this.outside = { start: make("div", { class: "outside" }), end: make("div", { class: "outside" }) };
    this.looped = make("div", { class: "looped", hidden: true });
    this.ruler.append(this.looped, this.start.node, this.end.node, this.playhead.node);
    this.tracks.append(this.outside.start, this.outside.end, this.line);
  }

  #pressed(event) {
    if (event.target.closest(".handle, button") || !event.target.closest("#tracks")) return;
    this.playhead.grab(event);
  }

  #connectRange() {
    const at = (id) => document.getElementById(id);
    for (const name of ["start", "end"]) {
      const field = at(`range-${name}`);
      field.addEventListener("change", () => this.#typed(name, field));
      field.addEventListener("blur", () => this.update());
      at(`range-${name}-here`).addEventListener("click", () => this.#setLimit(name, this.player.pair.time));
    }
    at("range-all").addEventListener("click", () => this.#choose({ start_seconds: null, end_seconds: null }));
    this.player.addEventListener("in", () => this.#setLimit("start", this.player.pair.time));
    this.player.addEventListener("out", () => this.#setLimit("end", this.player.pair.time));
  }

  get #video() {
    return this.player.subject?.video ?? null;
  }

  get #range() {
    const { start_seconds: start, end_seconds: end } = this.#video ? this.store.choices(this.#video) : {};
    return [start ?? 0, end ?? this.#seconds];
  }

  #typed(name, field) {
    const seconds = field.value.trim() === "" ? (name === "start" ? 0 : this.#seconds) : readTime(field.value);
    if (seconds === null) {
      this.problem.set(`“${field.value}” is no time. Write minutes and seconds, such as 1:15.0.`);
      return;
    }
    if (seconds > this.#seconds + 0.05) {
      this.problem.set(`The video ends at ${timeText(this.#seconds)}.`);
      return;
    }
    const [start, end] = this.#range;
    if (name === "start" ? seconds >= end : seconds <= start) {
      this.problem.set(name === "start" ? `The part must begin before it ends, at ${timeText(end)}.` : `The part must end after it begins, at ${timeText(start)}.`);
      return;
    }
    this.#setLimit(name, seconds);
  }

  #setLimit(name, seconds) {
    if (!this.#video) return;
    this.problem.set("");
    const { frame } = this.player.pair;
    let [start, end] = this.#range;
    if (name === "start") [start, end] = [seconds, seconds > end - frame ? this.#seconds : end];
    else [start, end] = [seconds < start + frame ? 0 : start, seconds];
    if (end - start < frame) return this.update();
    const rounded = (value) => Math.round(value * 1000) / 1000;
    return this.#choose({
      start_seconds: start < frame / 2 ? null : rounded(start),
      end_seconds: end > this.#seconds - frame / 2 ? null : rounded(end),
    });
  }

  #choose(part) {
    if (this.#video) this.store.choose(this.#video, part, this.problem);
  }

  /** Show what the state says. */
  update() {
    const { subject } = this.player;
    if (!subject) return;
    this.#seconds = this.player.seconds;
    show(this.node, this.#seconds > 0);
    if (!this.#seconds) return;
    this.#drawLabels(subject);
    this.#drawLanes(subject);
    this.#showRange(subject);
    this.#showTime();
  }

  #drawLabels({ found, key }) {
    const wanted = `${key} ${this.#seconds} ${found?.cuts_seconds ?? ""}`;
    if (this.#drawn === wanted) return;
    this.#drawn = wanted;
    const step = LABEL_STEPS.find((each) => this.#seconds / each <= MOST_LABELS) ?? this.#seconds / MOST_LABELS;
    const labels = document.getElementById("ruler-labels");
    labels.replaceChildren();
    for (let seconds = 0; seconds <= this.#seconds * 0.97; seconds += step) {
      labels.append(this.#at(make("span", { class: "ruler-label", text: clockText(seconds) }), seconds));
    }
    const cuts = document.getElementById("cuts");
    cuts.replaceChildren(...(found?.cuts_seconds ?? []).map((seconds) => this.#at(make("span", { class: "cut" }), seconds)));
    const count = found?.cuts_seconds.length ?? 0;
    cuts.classList.toggle("is-dense", count > DENSE_CUTS);
    setText(document.getElementById("cuts-text"), count ? `${counted(count, "cut")} (${count === 1 ? "marked" : "each marked"} with a line)` : "");
  }

  #at(node, seconds) {
    node.style.left = `${(100 * seconds) / this.#seconds}%`;
    return node;
  }

  /** Whether a person is restored by the present choices. */
  #isChosen(person) {
    if (!this.#video) return true;
    const { people, least_eye_px: least } = this.store.choices(this.#video);
    return (people?.includes(person.id) ?? true) && person.eye_px >= least;
  }

  #drawLanes({ video, found }) {
    const people = found?.people ?? [];
    keepHeight(document.getElementById("lanes"), !found && video?.analysis?.state !== "failed");
    const key = (person) => `${video.id} ${person.id}`;
    keepRows(document.getElementById("lane-names"), people, key, (first) => {
      const picture = make("img", { src: first.portrait, alt: "", class: "lane-portrait" });
      const name = make("span", { class: "lane-name" });
      const node = make("button", { type: "button", class: "lane-label" }, picture, name);
      let person = first;
      node.addEventListener("click", () => this.player.pair.seek(person.clearest_seconds));
      const update = (now) => {
        person = now;
        setAttribute(picture, "src", now.portrait);
        setText(name, personName(this.player.subject.video, now));
        setAttribute(node, "title", "Go to the clearest view");
        setAttribute(node, "aria-label", `Go to the clearest view of ${name.textContent}`);
        setAttribute(node, "data-color", colorOf(now));
        node.classList.toggle("is-off", !this.#isChosen(now));
      };
      return { node, update };
    });
    keepRows(document.getElementById("lane-bars"), people, key, () => {
      const node = make("div", { class: "lane" });
      let drawn = "";
      const update = (person) => {
        setAttribute(node, "data-color", colorOf(person));
        node.classList.toggle("is-off", !this.#isChosen(person));
        const wanted = `${this.#seconds} ${person.appearances}`;
        if (drawn === wanted) return;
        drawn = wanted;
        node.replaceChildren(
          ...person.appearances.map(([start, end]) => {
            const bar = this.#at(make("div", { class: "lane-bar" }), start);
            bar.style.width = `${(100 * (end - start)) / this.#seconds}%`;
            return bar;
          }),
        );
      };
      return { node, update };
    });
  }

  #showRange({ video }) {
    show(document.getElementById("range"), video !== null);
    for (const handle of [this.start, this.end]) show(handle.node, video !== null);
    const [start, end] = this.#range;
    if (!this.start.isDragged) this.#place(this.start, start);
    if (!this.end.isDragged) this.#place(this.end, end);
    const share = (seconds) => `${(100 * seconds) / this.#seconds}%`;
    this.outside.start.style.width = share(start);
    this.outside.end.style.left = share(end);
    this.outside.end.style.right = "0";
    setValue(document.getElementById("range-start"), timeText(start));
    setValue(document.getElementById("range-end"), timeText(end));
    const isPart = start > 0 || end < this.#seconds;
    document.getElementById("range-all").disabled = !isPart;
    const moment = video?.moment;
    const isLooped = moment?.state === "done" && moment.at_seconds !== null;
    show(this.looped, isLooped);
    if (isLooped) {
      this.#at(this.looped, moment.at_seconds);
      this.looped.style.width = share(moment.seconds ?? 2);
    }
  }

  #place(handle, seconds) {
    handle.set(seconds);
    this.#at(handle.node, seconds);
    if (handle === this.playhead) this.#at(this.line, seconds);
  }

  #showTime() {
    if (this.#seconds && !this.playhead.isDragged) this.#place(this.playhead, Math.min(this.player.pair.time, this.#seconds));
  }
}
