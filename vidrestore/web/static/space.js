// The foot of the page: how much space its files take, for how long they stay, and a dialog that deletes them.

import { post, remove } from "./api.js";
import { makeDialog } from "./dialog.js";
import { button, make, setText, setValue, show } from "./dom.js";
import { Problem } from "./problems.js";
import { counted, sizeText } from "./words.js";

const MOST_DAYS = 3650;

/** The foot of the page. */
export class Space {
  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    const at = (id) => document.getElementById(id);
    this.days = at("keep-days");
    this.problem = new Problem();
    at("keep").after(this.problem.node);
    this.days.addEventListener("change", () => this.#keep());
    at("free-space").addEventListener("click", () => this.#ask());
    store.addEventListener("change", () => this.update());
  }

  /** Show what the state says. */
  update() {
    const { state } = this.store;
    if (!state) return;
    setText(document.getElementById("space"), `Uploads, results and unfinished work take ${sizeText(state.space_bytes)} on this computer.`);
    setValue(this.days, state.keep_days);
    setText(document.getElementById("keep-unit"), state.keep_days === 1 ? "day without use" : "days without use");
    show(document.getElementById("free-space"), this.#items().length > 0);
  }

  async #keep() {
    const days = Number(this.days.value);
    if (this.days.value.trim() === "" || !Number.isInteger(days) || days < 0 || days > MOST_DAYS) {
      this.problem.set(`Write a whole number of days from 1 to ${MOST_DAYS}, or 0 to keep everything.`);
      return;
    }
    await this.problem.attempt(() => post("/api/settings", { keep_days: days }));
    await this.store.refresh();
  }

  #items() {
    const { videos, restorations } = this.store.state;
    const uploads = videos
      .filter((video) => video.is_upload && !video.is_needed)
      .map((video) => ({ name: video.name, kind: "Upload", bytes: video.bytes, run: () => remove(`/api/videos/${video.id}`) }));
    const results = restorations
      .filter((each) => each.state === "done" && each.is_in_library)
      .map((each) => ({ name: each.name, kind: "Result", bytes: each.bytes, run: () => post(`/api/restorations/${each.id}/remove`, { delete_result: true }) }));
    return [...results, ...uploads];
  }

  #ask() {
    const dialog = makeDialog("Free space", "narrow");
    const problem = new Problem();
    const chosen = new Set();
    const count = () => {
      const bytes = [...chosen].reduce((sum, item) => sum + (item.bytes ?? 0), 0);
      go.disabled = chosen.size === 0;
      setText(go.querySelector("span"), chosen.size ? `Delete ${counted(chosen.size, "file")} (${sizeText(bytes)})` : "Delete");
    };
    const go = button("Delete", () => this.#delete([...chosen], dialog, problem), { kind: "danger" });
    const rows = this.#items().map((item) => {
      const box = make("input", { type: "checkbox" });
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(item);
        else chosen.delete(item);
        count();
      });
      const words = make("span", { class: "row-words" }, make("bdi", { class: "name", text: item.name }), make("span", { class: "quiet", text: `${item.kind}, ${sizeText(item.bytes ?? 0)}` }));
      return make("li", {}, make("label", { class: "radio-row" }, box, words));
    });
    dialog.body.append(make("p", { text: "Choose what is deleted from the page's own folder. Your own files stay." }), make("ul", { class: "plain-list" }, ...rows), problem.node);
    dialog.foot.append(button("Cancel", dialog.close), go);
    dialog.node.addEventListener("close", () => dialog.node.remove());
    count();
    dialog.open();
  }

  async #delete(items, dialog, problem) {
    const done = await problem.attempt(async () => {
      for (const item of items) await item.run();
      return true;
    });
    await this.store.refresh();
    if (done) dialog.close();
  }
}
