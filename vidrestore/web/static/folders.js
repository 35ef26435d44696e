// Folders of this computer: videos to open in place, and the folder of a result.

import { get, post } from "./api.js";
import { button, freshId, icon, make, setAttribute, setText, show } from "./dom.js";
import { confirmed, makeDialog } from "./dialog.js";
import { Problem } from "./problems.js";
import { counted, dateText, sizeText } from "./words.js";

const PLACES = { id: null, name: "Places" };

/** A list of a folder, with the way to it above. */
class FolderList {
  #way = [PLACES];
  #asked = 0;

  /**
   * @param {object} options `hasFiles`: whether files are listed; `changed()`: called when the folder or
   *     the choice of files changed; `opened(file)`: called when a file is opened at once.
   */
  constructor({ hasFiles, changed, opened = () => {} }) {
    this.options = { hasFiles, changed, opened };
    this.folder = null;
    this.hasMoved = false;
    this.chosen = new Map();
    this.way = make("ol", { class: "way" });
    this.rows = make("ul", { class: "folder-rows", "aria-label": hasFiles ? "Folders and files" : "Folders" });
    this.note = make("p", { class: "quiet folder-note", role: "status" });
    this.problem = new Problem();
    const label = { class: "way-nav", "aria-label": "Way to this folder" };
    this.node = make("div", { class: "folder-list" }, make("nav", label, this.way), this.problem.node, this.rows, this.note);
    this.rows.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * Show a folder.
   *
   * @param {string|null} id The folder; null: that of last time, or the places to begin with.
   * @returns {Promise<boolean>} Whether a folder is shown; false too when another call has overtaken this one.
   */
  async begin(id = null) {
    // The rows of last time would take keys that are meant for those to come.
    this.rows.replaceChildren();
    this.chosen.clear();
    this.options.changed();
    const way = id === null ? this.#way : await this.#wayTo(id);
    const asked = this.#asked + 1;
    let isShown = await this.#go(way, false);
    if (!isShown && way.length > 1 && asked === this.#asked) isShown = await this.#go([PLACES], false);
    this.hasMoved = false;
    return isShown;
  }

  /** Return the folders that lead to one. */
  async #wayTo(id) {
    const steps = [];
    for (let next = id; next !== null; next = steps[0].parent) {
      const step = await get(`/api/folders/${next}`).catch(() => null);
      if (step === null) return [PLACES];
      steps.unshift(step);
    }
    return [PLACES, ...steps];
  }

  async #go(way, takesFocus = true) {
    this.#asked += 1;
    const asked = this.#asked;
    const { id } = way.at(-1);
    const answer = await this.problem.attempt(() => get(id === null ? "/api/folders" : `/api/folders/${id}`));
    if (!answer || asked !== this.#asked) return false;
    const isTop = id === null;
    // With one place to begin in, there is nothing to choose.
    if (isTop && answer.length === 1 && !takesFocus) return this.#go([PLACES, answer[0]], false);
    this.#way = way;
    this.hasMoved = true;
    this.folder = isTop ? null : answer;
    this.chosen.clear();
    this.#draw(isTop ? answer : answer.folders, isTop ? [] : answer.files, takesFocus);
    this.options.changed();
    return true;
  }

  #draw(folders, files, takesFocus) {
    this.way.replaceChildren(
      ...this.#way.map((step, at) => {
        const isHere = at === this.#way.length - 1;
        const name = isHere
          ? make("span", { "aria-current": "location", text: step.name })
          : make("button", { type: "button", class: "link", text: step.name, on: { click: () => this.#go(this.#way.slice(0, at + 1)) } });
        return make("li", {}, name);
      }),
    );
    const shownFiles = this.options.hasFiles ? files : [];
    this.rows.replaceChildren(
      ...folders.map((folder) => make("li", {}, this.#folderRow(folder))),
      ...shownFiles.map((file) => make("li", {}, this.#fileRow(file))),
    );
    const rows = this.#buttons();
    rows.forEach((row, at) => setAttribute(row, "tabindex", at ? "-1" : "0"));
    if (takesFocus) (rows[0] ?? this.way.querySelector("button"))?.focus();
    setText(this.note, this.#noteText(folders, shownFiles));
    show(this.note, this.note.textContent !== "");
  }

  #noteText(folders, files) {
    if (this.folder?.is_cut) return "This folder holds more than is listed here.";
    if (folders.length || files.length) return "";
    return this.options.hasFiles ? "There is no video in this folder." : "There is no folder in this one.";
  }

  #folderRow(folder) {
    const enter = () => this.#go([...this.#way, folder]);
    return make("button", { type: "button", class: "folder-row", "data-kind": "folder", on: { click: enter } }, icon("folder"), make("bdi", { class: "name", text: folder.name }));
  }

  #fileRow(file) {
    const row = make(
      "button",
      { type: "button", class: "folder-row", "data-kind": "file", "aria-pressed": "false" },
      make("span", { class: "tick" }, icon("check")),
      make("bdi", { class: "name", text: file.name }),
      make("span", { class: "quiet", text: sizeText(file.bytes) }),
      make("span", { class: "quiet date", text: dateText(file.modified_seconds) }),
    );
    const choose = () => {
      const isChosen = !this.chosen.delete(file.id);
      if (isChosen) this.chosen.set(file.id, file);
      setAttribute(row, "aria-pressed", isChosen);
      this.options.changed();
    };
    row.addEventListener("click", choose);
    row.addEventListener("dblclick", () => this.options.opened(file));
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.options.opened(file);
    });
    return row;
  }

  #buttons() {
    return [...this.rows.querySelectorAll("button")];
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = this.#buttons();
    const at = rows.indexOf(document.activeElement);
    const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, PageDown: at + 8, PageUp: at - 8 };
    let next = null;
    if (event.key in places) next = rows[Math.min(rows.length - 1, Math.max(0, places[event.key]))];
    else if (event.key === "Backspace") {
      event.preventDefault();
      if (this.#way.length > 1) this.#go(this.#way.slice(0, -1));
      return;
    } else if (event.key.length === 1 && event.key !== " ") {
      const isNamed = (row) => row.querySelector(".name").textContent.toLowerCase().startsWith(event.key.toLowerCase());
      next = [...rows.slice(at + 1), ...rows.slice(0, at + 1)].find(isNamed);
    }
    if (!next) return;
    event.preventDefault();
    for (const row of rows) setAttribute(row, "tabindex", row === next ? "0" : "-1");
    next.focus();
  }
}

/** The dialog in which videos of this computer are opened. */
export class OpenDialog {
  /**
   * @param {Store} store The state of the page.
   * @param {function} arrived Called with the ids of the opened videos.
   */
  constructor(store, arrived) {
    this.store = store;
    this.arrived = arrived;
    this.dialog = makeDialog("Choose videos on this computer", "wide");
    this.list = new FolderList({ hasFiles: true, changed: () => this.#showCount(), opened: (file) => this.#open([...this.list.chosen.values(), file]) });
    this.openButton = button("Open", () => this.#open([...this.list.chosen.values()]), { kind: "primary" });
    const promise = make("p", { class: "quiet", text: "Your files stay where they are and as they are." });
    this.dialog.body.append(this.list.node);
    this.dialog.foot.append(promise, button("Cancel", this.dialog.close), this.openButton);
  }

  /** Show the dialog. */
  async show() {
    this.dialog.open();
    if (await this.list.begin()) this.list.rows.querySelector("button")?.focus();
  }

  #showCount() {
    const { size } = this.list.chosen;
    this.openButton.disabled = size === 0;
    setText(this.openButton.querySelector("span"), size > 1 ? `Open ${counted(size, "video")}` : "Open");
  }

  async #open(files) {
    const ids = [];
    for (const id of new Set(files.map((file) => file.id))) {
      const answer = await this.list.problem.attempt(() => post("/api/videos/open", { entry: id }));
      if (!answer) break;
      ids.push(answer.video);
    }
    await this.store.refresh();
    if (ids.length) this.arrived(ids);
    if (ids.length === new Set(files.map((file) => file.id)).size) this.dialog.close();
  }
}

/** The dialog in which the user says where a result goes. */
export class TargetDialog {
  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    this.dialog = makeDialog("Where the new video goes", "wide");
    const id = freshId("target");
    this.name = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
    this.problem = new Problem();
    this.list = new FolderList({ hasFiles: false, changed: () => this.#showFolder() });
    this.folderText = make("p", { class: "quiet" });
    this.name.addEventListener("keydown", (event) => event.key === "Enter" && this.#save());
    this.dialog.body.append(make("label", { for: id, class: "field-label", text: "Name of the file" }), this.name, this.folderText, this.list.node);
    this.dialog.foot.append(this.problem.node, button("Cancel", this.dialog.close), button("Save here", () => this.#save(), { kind: "primary" }));
  }

  /** Show the dialog for a video. */
  async show(video) {
    this.video = video;
    const { is_local: isLocal } = this.store.state;
    this.name.value = video.target.name;
    this.problem.set("");
    show(this.list.node, isLocal);
    show(this.folderText, isLocal);
    this.dialog.open();
    this.name.focus();
    this.name.setSelectionRange(0, Math.max(0, video.target.name.lastIndexOf(".")));
    if (isLocal) await this.list.begin(video.target.folder);
    this.#showFolder();
  }

  /** The folder that the user went to; null: the result stays where it is saved now. */
  get #folder() {
    return this.list.hasMoved ? this.list.folder : null;
  }

  #showFolder() {
    const folder = this.#folder;
    const { folder_shown: now } = this.video.target;
    setText(this.folderText, folder?.is_writable === false ? `Nothing can be saved in ${folder.path_shown}.` : `It is saved in ${folder?.path_shown ?? now}.`);
  }

  async #save() {
    const name = this.name.value.trim();
    if (!name) {
      this.problem.set("Give the file a name.");
      return;
    }
    const target = { folder: this.#folder?.id ?? this.video.target.folder, name };
    const answer = await this.problem.attempt(() => post(`/api/videos/${this.video.id}/target`, target));
    if (!answer) return;
    await this.store.refresh();
    if (answer.exists) {
      const question = { title: "Replace the file?", sentences: [`There is a file ${name} in this folder already. It would be replaced when you restore the video.`], yes: "Use this name" };
      if (!(await confirmed(question))) return;
    }
    this.dialog.close();
  }
}
