// How videos come to the page, and the list of those that are open.

import { remove } from "./api.js";
import { confirmed } from "./dialog.js";
import { iconButton, keepRows, make, setAttribute, setText, show } from "./dom.js";
import { OpenDialog } from "./folders.js";
import { Problem } from "./problems.js";
import { Uploads } from "./uploads.js";
import { durationText, sizeText } from "./words.js";

/** The drop zone, the files on their way, and the open videos. */
export class Videos {
  #isAwaited = false;
  #dragged = 0;

  /** @param {Store} store The state of the page. */
  constructor(store) {
    this.store = store;
    const at = (id) => document.getElementById(id);
    this.list = at("videos");
    this.problem = new Problem();
    this.list.before(this.problem.node);
    this.uploads = new Uploads(at("uploads"), (id) => this.#arrived([id]));
    this.dialog = new OpenDialog(store, (ids) => {
      this.#isAwaited = true;
      this.#arrived(ids);
    });
    at("files").addEventListener("change", (event) => {
      this.#send([...event.target.files]);
      event.target.value = "";
    });
    at("choose-files").addEventListener("click", () => at("files").click());
    at("choose-here").addEventListener("click", () => this.dialog.show());
    this.#connectDrop();
    store.addEventListener("change", () => this.update());
  }

  /** The whole window takes files; the zone shows where they go. */
  #connectDrop() {
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const mark = () => document.getElementById("drop").classList.toggle("is-over", this.#dragged > 0);
    const counts = (step) => (event) => {
      if (!hasFiles(event)) return;
      this.#dragged = Math.max(0, this.#dragged + step);
      mark();
    };
    window.addEventListener("dragenter", counts(1));
    window.addEventListener("dragleave", counts(-1));
    window.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    window.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.#dragged = 0;
      mark();
      if (!document.querySelector("dialog[open]")) this.#drop(event.dataTransfer);
    });
  }

  #drop(transfer) {
    const items = [...transfer.items].filter((item) => item.kind === "file");
    const folders = items.filter((item) => item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile()).filter(Boolean);
    const isFolder = (file) => folders.some((folder) => folder.name === file.name && folder.size === file.size);
    const files = [...transfer.files];
    this.#send(files, new Set(files.filter(isFolder)));
  }

  #send(files, folders) {
    this.#isAwaited = true;
    this.uploads.add(files, this.store.state?.most_upload_bytes ?? null, folders);
  }

  async #arrived(ids) {
    // The first of those that the user gave is shown; the others wait in the list.
    const isFirst = this.#isAwaited;
    this.#isAwaited = false;
    await this.store.refresh();
    if (isFirst) this.store.select(ids[0]);
  }

  /** Show what the state says. */
  update() {
    const { state, video: selected } = this.store;
    if (!state) return;
    show(document.getElementById("choose-here"), state.is_local);
    show(this.list, state.videos.length > 0);
    keepRows(this.list, state.videos, (video) => video.id, (video) => this.#row(video));
    document.title = selected ? `${selected.name} · vidrestore` : "vidrestore";
  }

  #row(first) {
    let video = first;
    const picture = make("img", { alt: "", class: "video-picture", hidden: true });
    const name = make("bdi", { class: "name" });
    const facts = make("span", { class: "quiet" });
    const pick = make(
      "button",
      { type: "button", class: "video-row", on: { click: () => this.store.select(video.id) } },
      make("span", { class: "video-frame" }, picture),
      make("span", { class: "video-words" }, name, facts),
    );
    const close = iconButton("close", "", () => this.#forget(video));
    const node = make("li", { class: "video-item" }, pick, close);
    const update = (now) => {
      video = now;
      setText(name, now.name);
      setText(facts, this.#facts(now));
      facts.classList.toggle("is-wrong", now.analysis?.state === "failed" || now.is_there === false);
      show(picture, Boolean(now.thumbnail));
      setAttribute(picture, "src", now.thumbnail);
      setAttribute(pick, "aria-current", now.id === this.store.video?.id ? "true" : null);
      setAttribute(close, "aria-label", `Close ${now.name}`);
      setAttribute(close, "title", now.is_upload ? "Close; the uploaded copy is deleted" : "Close; your file stays");
    };
    return { node, update };
  }

  #facts(video) {
    if (video.is_there === false) return "The file is gone or has changed";
    if (video.analysis?.state === "failed") return "Not usable";
    if (!video.found) return video.analysis?.text || sizeText(video.bytes);
    const length = video.is_picture ? "Picture" : durationText(video.found.seconds);
    return [length, sizeText(video.bytes), video.place_shown].filter(Boolean).join(" · ");
  }

  async #forget(video) {
    if (video.is_upload && video.analysis?.state !== "failed") {
      const sentences = [`The page deletes its copy of ${video.name} (${sizeText(video.bytes)}). The file that you sent stays on your computer.`];
      if (video.is_needed) sentences.push("A restoration still needs the copy, so it goes when that has ended.");
      if (!(await confirmed({ title: "Close this video?", sentences, yes: "Close" }))) return;
    }
    await this.problem.attempt(() => remove(`/api/videos/${video.id}`));
    await this.store.refresh();
    document.getElementById("choose-files").focus({ preventScroll: true });
  }
}
