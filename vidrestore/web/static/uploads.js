// Files on their way to the server, one after the other.

import { ApiError, readAnswer } from "./api.js";
import { button, iconButton, keepRows, make, setText, show } from "./dom.js";
import { sizeText } from "./words.js";

const FOLDER = "This is a folder. Open it, then drop the videos that are in it.";

/** The list of files that are sent. */
export class Uploads {
  #files = [];
  #given = 0;

  /**
   * @param {Element} list A list element for the rows.
   * @param {function} arrived Called with the id of each new video.
   */
  constructor(list, arrived) {
    this.list = list;
    this.arrived = arrived;
    window.addEventListener("beforeunload", (event) => this.isSending && event.preventDefault());
  }

  /** Whether something is still to be sent. */
  get isSending() {
    return this.#files.some((file) => file.state === "waiting" || file.state === "sending");
  }

  /**
   * Send files.
   *
   * @param {File[]} files The files.
   * @param {number|null} mostBytes The largest that the server takes.
   * @param {Set<File>} folders Those of the files that are folders, which no browser can send.
   */
  add(files, mostBytes, folders = new Set()) {
    for (const file of files) {
      this.#given += 1;
      const isLarge = mostBytes !== null && file.size > mostBytes;
      const large = isLarge ? `This file has ${sizeText(file.size)}; the page takes up to ${sizeText(mostBytes)}.` : "";
      const error = folders.has(file) ? FOLDER : large;
      this.#files.push({ id: this.#given, file, sent: 0, state: error ? "failed" : "waiting", error, mayRetry: !error });
    }
    this.#next();
  }

  #next() {
    this.#draw();
    const entry = this.#files.find((each) => each.state === "waiting");
    if (entry && !this.#files.some((each) => each.state === "sending")) this.#send(entry);
  }

  #send(entry) {
    const request = new XMLHttpRequest();
    Object.assign(entry, { state: "sending", request, sent: 0, error: "" });
    request.open("POST", `/api/videos?name=${encodeURIComponent(entry.file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      entry.sent = event.loaded;
      this.#draw();
    });
    const failed = (sentence) => this.#end(entry, "failed", sentence);
    request.addEventListener("error", () => failed("The program that serves this page did not take the file."));
    request.addEventListener("load", () => {
      try {
        const { video } = readAnswer(request.status, request.responseText);
        this.#end(entry, "done", "");
        this.arrived(video);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        failed(error.message);
      }
    });
    request.send(entry.file);
    this.#draw();
  }

  #end(entry, state, error) {
    Object.assign(entry, { state, error, request: null });
    if (state === "done") this.#drop(entry);
    this.#next();
  }

  #drop(entry) {
    entry.request?.abort();
    this.#files = this.#files.filter((each) => each !== entry);
    this.#next();
  }

  #draw() {
    show(this.list, this.#files.length > 0);
    keepRows(this.list, this.#files, (entry) => entry.id, (entry) => this.#row(entry));
  }

  #row(entry) {
    const { name } = entry.file;
    const text = make("span", { class: "quiet" });
    const bar = make("progress", { max: 1, "aria-label": `Sending ${name}` });
    const problem = make("p", { class: "problem", role: "alert" });
    const cancel = iconButton("close", `Cancel ${name}`, () => this.#drop(entry));
    const again = button("Try again", () => {
      entry.state = "waiting";
      this.#next();
    });
    const node = make("li", { class: "upload" }, make("bdi", { class: "name", text: name }), text, cancel, bar, problem, again);
    const update = () => {
      const { size } = entry.file;
      const isFailed = entry.state === "failed";
      const sent = entry.state === "waiting" ? "Waiting" : `${sizeText(entry.sent)} of ${sizeText(size)}`;
      setText(text, isFailed ? (entry.error === FOLDER ? "" : sizeText(size)) : sent);
      bar.value = size ? entry.sent / size : 0;
      show(bar, !isFailed);
      show(problem, isFailed);
      setText(problem, entry.error);
      show(again, isFailed && entry.mayRetry);
      cancel.title = isFailed ? "Remove from this list" : "Cancel";
    };
    return { node, update };
  }
}
