// How much, how small, and what is folded under "More".

import { setText, show } from "./dom.js";
import { estimated, facesOf } from "./estimate.js";
import { Problem } from "./problems.js";
import { RadioRows } from "./radio_rows.js";
import { Weights, missingWeights } from "./weights.js";
import { counted, durationText, listed, personName } from "./words.js";

const FACE_HEIGHT_EYES = 3; // a face is about three times as high as its eyes are apart
const LEAST_RANGE_PX = 40;
const ROOM = 1.1;

/** The sliders and the folded options. */
export class Options {
  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    const at = (id) => document.getElementById(id);
    this.strength = at("strength");
    this.size = at("size");
    this.problem = new Problem();
    at("options").append(this.problem.node);
    this.moreProblem = new Problem();
    at("more").append(this.moreProblem.node);
    this.strength.addEventListener("input", () => this.#choose({ strength: Number(this.strength.value) }));
    this.size.addEventListener("input", () => this.#choose({ least_eye_px: Number(this.size.value) }));
    at("key-frames").addEventListener("change", (event) => this.#chooseMore({ key_frames: event.target.checked }));
    const rows = (id, name) => new RadioRows(at(id), id, (chosen) => this.#chooseMore({ [name]: chosen }));
    this.rows = {
      restorer: rows("restorers", "restorer"),
      detector: rows("detectors", "detector"),
      quality: rows("qualities", "quality"),
      container: rows("containers", "container"),
    };
    this.weights = { restorer: new Weights(at("restorer-weights"), store), detector: new Weights(at("detector-weights"), store) };
    store.addEventListener("change", () => this.update());
  }

  #choose(part) {
    this.store.choose(this.store.video, part, this.problem);
  }

  #chooseMore(part) {
    this.store.choose(this.store.video, part, this.moreProblem);
  }

  /** Show what the state says. */
  update() {
    const { state, video } = this.store;
    if (!video) return;
    const choices = this.store.choices(video);
    this.#showStrength(choices.strength);
    this.#showSize(video, choices);
    const needs = (item) => ({ ...item, note: missingWeights(state, item).length ? "needs a download" : "" });
    this.rows.restorer.update(state.restorers.map(needs), choices.restorer);
    this.rows.detector.update(state.detectors.map(needs), choices.detector);
    this.weights.restorer.update(state.restorers.find((each) => each.id === choices.restorer));
    this.weights.detector.update(state.detectors.find((each) => each.id === choices.detector));
    this.rows.quality.update(state.qualities, choices.quality);
    const allowed = state.qualities.find((each) => each.id === choices.quality)?.containers ?? [];
    this.rows.container.update(state.containers, choices.container, (item) => !allowed.length || allowed.includes(item.id));
    this.#showFaster(video, choices);
  }

  #showStrength(strength) {
    if (document.activeElement !== this.strength || Number(this.strength.value) !== strength) this.strength.value = strength;
    const text = `${Math.round(strength * 100)} %`;
    setText(document.getElementById("strength-value"), text);
    this.strength.setAttribute("aria-valuetext", text);
  }

  #showSize(video, choices) {
    const { found } = video;
    const people = found?.people ?? [];
    show(document.getElementById("size-option"), people.length > 0);
    if (!people.length) return;
    const largest = Math.max(...people.map((person) => person.eye_px));
    this.size.max = Math.max(LEAST_RANGE_PX, Math.ceil(largest * ROOM), choices.least_eye_px);
    this.size.value = choices.least_eye_px;
    const height = Math.round(choices.least_eye_px * FACE_HEIGHT_EYES);
    const value = height ? `under ${counted(height, "pixel")}` : "none";
    setText(document.getElementById("size-value"), value);
    this.size.setAttribute("aria-valuetext", value);
    const left = people.filter((person) => person.eye_px < choices.least_eye_px);
    const faces = Math.round(left.reduce((sum, person) => sum + facesOf(person), 0));
    const effect = left.length ? `Leaves out ${listed(left.map((person) => personName(video, person)))}: ${counted(faces, "face")}.` : "Leaves out no person.";
    setText(document.getElementById("size-effect"), effect);
    const sketch = document.getElementById("size-sketch");
    show(sketch, height > 0); // an empty frame would say nothing
    sketch.style.setProperty("--aspect", found.width / found.height);
    sketch.style.setProperty("--face", Math.min(1, height / found.height));
  }

  #showFaster(video, choices) {
    const saved = video.found ? estimated(video, choices).savedSeconds : null;
    const isShown = saved !== null || choices.key_frames;
    show(document.getElementById("faster"), isShown);
    document.getElementById("key-frames").checked = choices.key_frames;
    setText(document.getElementById("faster-text"), saved === null ? "" : `Saves about ${durationText(saved)}. Faces that move calmly are repainted in some pictures and carried on to those between.`);
  }
}
