// The restorations: what waits, runs and is done.

import { post } from "./api.js";
import { confirmed } from "./dialog.js";
import { button, icon, keepRows, make, setAttribute, setText, show } from "./dom.js";
import { Problem } from "./problems.js";
import { durationText, sizeText } from "./words.js";

const STATE_WORDS = { waiting: "Waiting", running: "Running", pausing: "Pausing", paused: "Paused", failed: "Failed", done: "Done" };
const PAUSABLE = ["waiting", "running"];
const CONTINUABLE = ["paused", "failed"];

/** The list of restorations. */
export class Queue {
  /**
   * @param {Store} store The state of the page.
   * @param {Player} player Shows results.
   */
  constructor(store, player) {
    this.store = store;
    this.player = player;
    this.list = document.getElementById("restorations");
    store.addEventListener("change", () => this.update());
  }

  /** Show what the state says. */
  update() {
    const { state } = this.store;
    if (!state) return;
    show(document.getElementById("queue"), state.restorations.length > 0 || state.videos.length > 0);
    show(document.getElementById("no-restorations"), state.restorations.length === 0);
    keepRows(this.list, state.restorations, (each) => each.id, (each) => this.#row(each));
  }

  #row(first) {
    let now = first;
    const problem = new Problem();
    const act = (path, body) => async () => {
      await problem.attempt(() => post(`/api/restorations/${now.id}/${path}`, body));
      await this.store.refresh();
    };
    const parts = {
      name: make("h3", {}),
      badge: make("span", { class: "state" }),
      settings: make("p", { class: "quiet" }),
      text: make("p", { class: "job-text" }),
      bar: make("progress", { max: 1 }),
      notes: make("ul", { class: "notes quiet" }),
      pause: button("Pause", act("pause"), { picture: "pause" }),
      resume: button("Continue", act("continue"), { picture: "play", kind: "primary" }),
      open: button("Play", () => this.player.openRestoration(now.id, "after"), { picture: "play", kind: "primary" }),
      compare: button("Compare", () => this.player.openRestoration(now.id, "wipe"), { picture: "compare" }),
      folder: button("Show in folder", act("show"), { picture: "folder" }),
      download: link("Download", "download"),
      report: link("Report", "report"),
      remove: button("Remove", () => this.#remove(now, problem), { picture: "trash", kind: "plain quiet-button" }),
    };
    const picture = makePicture();
    const node = make(
      "li",
      { class: "job" },
      picture.node,
      make("div", { class: "job-words" }, make("div", { class: "job-head" }, parts.name, parts.badge), parts.settings, parts.text, parts.bar, problem.node, parts.notes),
      make("div", { class: "job-buttons" }, parts.resume, parts.open, parts.compare, parts.folder, parts.download, parts.report, parts.pause, parts.remove),
    );
    setAttribute(parts.report, "target", "_blank");
    setAttribute(parts.report, "rel", "noopener");
    const update = (each) => {
      now = each;
      updateRow(parts, each);
      node.dataset.state = each.state;
      picture.update(each.live ?? each.thumbnail, each.live ? `The newest picture of ${each.name}` : "");
      setAttribute(node, "aria-label", each.name);
    };
    return { node, update };
  }

  async #remove(each, problem) {
    const isDone = each.state === "done";
    const sentences = [removalText(each)];
    if (!isDone) sentences.push("Your own video stays as it is.");
    if (!(await confirmed({ title: `Remove ${each.name}?`, sentences, yes: isDone && each.is_in_library ? "Delete" : "Remove", isDangerous: true }))) return;
    await problem.attempt(() => post(`/api/restorations/${each.id}/remove`, { delete_result: isDone && each.is_in_library }));
    await this.store.refresh();
    const next = document.querySelector("#restorations button:not([hidden])") ?? document.getElementById("queue-title");
    next.focus();
  }
}

function removalText(each) {
  if (each.state !== "done") return "What is finished of it so far is deleted. It cannot be continued afterwards.";
  if (each.is_in_library) return `The file ${each.name} (${sizeText(each.bytes)}) is deleted from this page's folder, with its report. Download it first if you want to keep it.`;
  if (!each.result) return "It goes from this list, with its report.";
  return `It goes from this list, with its report. The file ${each.place_shown}/${each.name} stays.`;
}

function updateRow(parts, each) {
  const isDone = each.state === "done";
  setText(parts.name, each.name);
  setText(parts.badge, STATE_WORDS[each.state]);
  setText(parts.settings, [each.settings_shown, isDone && each.bytes ? sizeText(each.bytes) : "", isDone ? each.place_shown : ""].filter(Boolean).join(" · "));
  const left = each.state === "running" && typeof each.seconds_left === "number" ? `, about ${durationText(each.seconds_left)} left` : "";
  setText(parts.text, each.state === "failed" ? each.error : `${each.text ?? ""}${left}`);
  parts.text.classList.toggle("problem", each.state === "failed");
  show(parts.text, parts.text.textContent !== "");
  const hasBar = !isDone && each.state !== "failed";
  show(parts.bar, hasBar);
  if (typeof each.share === "number") parts.bar.value = each.share;
  else if (each.state === "running") parts.bar.removeAttribute("value");
  else parts.bar.value = 0;
  setAttribute(parts.bar, "aria-label", `Progress of ${each.name}`);
  keepRows(parts.notes, each.notes ?? [], (note) => note, (note) => ({ node: make("li", { text: note }), update: () => {} }));
  show(parts.notes, (each.notes ?? []).length > 0);
  show(parts.pause, PAUSABLE.includes(each.state));
  show(parts.resume, CONTINUABLE.includes(each.state));
  setText(parts.resume.querySelector("span"), each.state === "failed" ? "Try again" : "Continue");
  show(parts.open, isDone && Boolean(each.result));
  show(parts.compare, isDone && Boolean(each.result && each.source));
  show(parts.folder, isDone && each.can_show);
  show(parts.download, isDone && !each.can_show && Boolean(each.result));
  setAttribute(parts.download, "href", `/media/download/${each.id}`);
  setAttribute(parts.download, "download", each.name);
  show(parts.report, isDone && Boolean(each.report));
  setAttribute(parts.report, "href", each.report);
  show(parts.remove, each.state !== "pausing");
  for (const name of ["pause", "resume", "open", "compare", "folder", "download", "report", "remove"]) {
    const suffix = name === "report" ? " (opens in a new tab)" : "";
    setAttribute(parts[name], "aria-label", `${parts[name].textContent}: ${each.name}${suffix}`);
  }
}

function link(text, picture) {
  return make("a", { class: "button plain" }, icon(picture), make("span", { text }));
}

/** A picture that is replaced only once the next one is here, so that nothing flashes. */
function makePicture() {
  const image = make("img", { alt: "" });
  const node = make("div", { class: "job-picture" }, image);
  let wanted = null;
  const update = (url, alt) => {
    setAttribute(image, "alt", alt);
    if (url === wanted) return;
    wanted = url;
    if (!url) {
      image.removeAttribute("src");
      return;
    }
    const next = new Image();
    next.addEventListener("load", () => url === wanted && setAttribute(image, "src", url));
    next.src = url;
  };
  return { node, update };
}
