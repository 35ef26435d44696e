// The player: the video, and once it is restored, before and after in step.

import { icon, listen, make, setAttribute, setIcon, setText, show } from "./dom.js";
import { Handle } from "./handle.js";
import { Pair } from "./pair.js";
import { Screen } from "./screen.js";
import { durationText, timeText } from "./words.js";

const EDGE_PX = 12;
const JUMP_SECONDS = 5;
const SHORT_JUMP_SECONDS = 1;
const MODES = ["before", "wipe", "side", "after"];
const IS_TYPED_IN = "input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select";
const GONE = "The file is no longer there, has changed, or its disk is not connected.";
const CANNOT_SHOW = "This browser cannot show this kind of picture.";
const KEYS_SETTING = "vidrestore-keys";

/** The picture, its controls and its keys. Sends `subject` when it shows another video. */
export class Player extends EventTarget {
  #mode = "before";
  #isHeld = false;
  #subject = null;
  #wanted = null;

  /** @param {Store} store The state of the page. */
  constructor(store) {
    super();
    this.store = store;
    this.node = document.getElementById("player");
    this.stage = document.getElementById("stage");
    this.before = document.getElementById("before");
    this.after = document.getElementById("after");
    this.stills = [document.getElementById("still-before"), document.getElementById("still-after")];
    this.pair = new Pair(this.before, this.after);
    this.screens = { before: new Screen(this.before, store), after: new Screen(this.after, store) };
    this.#buildWipe();
    this.#connect();
    store.addEventListener("change", () => this.update());
  }

  /** What is shown: {video, restoration, found, before, after}; null if there is nothing. */
  get subject() {
    return this.#subject;
  }

  /** How long the source is, in seconds. */
  get seconds() {
    const known = this.#subject?.found?.seconds ?? 0;
    const [, last] = this.pair.range;
    return known || (Number.isFinite(this.before.duration) ? this.before.duration : last);
  }

  #buildWipe() {
    const picture = document.getElementById("picture");
    this.wipe = new Handle("Border between before and after", {
      kind: "wipe",
      track: () => picture,
      range: () => [0, 100],
      steps: () => ({ arrow: 2, page: 20 }),
      text: (value) => `before on the left ${Math.round(value)} %, after on the rest`,
      move: (value) => this.#setWipe(value),
    });
    this.wipe.node.append(icon("wipe"));
    picture.append(this.wipe.node);
    this.#setWipe(50);
  }

  #setWipe(value) {
    this.wipe.set(value);
    this.wipe.node.style.left = `${value}%`;
    this.stage.style.setProperty("--wipe", `${value}%`);
  }

  #connect() {
    const at = (id) => document.getElementById(id);
    const { pair } = this;
    at("play").addEventListener("click", () => pair.toggle());
    at("frame-back").addEventListener("click", () => pair.step(-1));
    at("frame-forward").addEventListener("click", () => pair.step(1));
    at("sound").addEventListener("click", () => this.#toggleSound());
    show(at("full-screen"), document.fullscreenEnabled); // some phones show nothing but a video so
    at("full-screen").addEventListener("click", () => this.#toggleFullScreen());
    at("keys").addEventListener("click", () => at("keys-dialog").showModal());
    at("keys-close").addEventListener("click", () => at("keys-dialog").close());
    const keys = at("keys-on");
    keys.checked = localStorage.getItem(KEYS_SETTING) !== "off";
    keys.addEventListener("change", () => localStorage.setItem(KEYS_SETTING, keys.checked ? "on" : "off"));
    for (const radio of document.querySelectorAll("input[name=mode]")) {
      radio.addEventListener("change", () => this.setMode(radio.value));
    }
    const hold = at("hold");
    const held = (isHeld) => () => this.#hold(isHeld);
    listen(hold, { pointerdown: held(true), pointerup: held(false), pointerleave: held(false), pointercancel: held(false), blur: held(false) });
    listen(hold, {
      keydown: (event) => (event.key === " " || event.key === "Enter") && this.#hold(true),
      keyup: held(false),
      contextmenu: (event) => event.preventDefault(),
    });
    this.stage.addEventListener("click", (event) => event.target instanceof HTMLVideoElement && pair.toggle());
    at("which").addEventListener("change", (event) => this.store.open(event.target.value));
    for (const still of this.stills) listen(still, { load: () => this.#showStillNote(), error: () => this.#showStillNote() });
    listen(pair, { time: () => this.#showTime(), play: () => this.#showPlaying(), change: () => this.#arrange() });
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && this.#hold(false));
    window.addEventListener("blur", () => this.#hold(false));
  }

  /** Show what the state says. */
  update() {
    const subject = this.#choose();
    const isOther = subject?.key !== this.#subject?.key;
    const isOtherSource = subject?.before?.url !== this.#subject?.before?.url;
    this.#subject = subject;
    if (!subject) {
      this.screens.before.show(null);
      this.screens.after.show(null);
      return;
    }
    if (isOtherSource) this.pair.pause();
    if (isOther) {
      this.#setModeQuietly(this.#wanted ?? (subject.after ? "wipe" : "before"));
      this.#wanted = null;
    }
    const { found, restoration, video } = subject;
    this.node.classList.toggle("is-picture", subject.isPicture);
    if (subject.isPicture) {
      this.#showStills(subject);
      if (isOther) this.dispatchEvent(new Event("subject"));
      return;
    }
    for (const still of this.stills) setAttribute(still, "src", null);
    this.#showFacts(subject);
    this.#showWhich(subject);
    const shown = (screen, part) => (part ? screen.show(part.url, part.proxy, part.path, part.body) : screen.show(null));
    const first = shown(this.screens.before, subject.before);
    const second = shown(this.screens.after, subject.after);
    this.#setTimes(subject);
    const gone = subject.before || restoration ? null : { text: GONE, share: null, isWrong: true };
    this.#showNote((this.#mode !== "before" && second) || (this.#mode !== "after" && first) || gone);
    this.#arrange();
    if (isOther) this.dispatchEvent(new Event("subject"));
  }

  /** A copy has a clock of its own; a result of a part begins at 0, and one of the whole keeps the clock of the source. */
  #setTimes({ before, after, found, restoration }) {
    const first = found?.first_seconds ?? 0;
    const zero = (screen, part, own) => (part?.proxy?.url && screen.shown === part.proxy.url ? (part.proxy.first_seconds ?? 0) : own);
    this.pair.setTimes(
      restoration?.start_seconds ?? 0,
      found?.rate ?? 0,
      zero(this.screens.before, before, first),
      zero(this.screens.after, after, restoration?.is_part ? 0 : first),
    );
  }

  #choose() {
    const { state, opened, video: selected } = this.store;
    if (!state) return null;
    const done = state.restorations.filter((each) => each.state === "done" && each.result);
    const asked = done.find((each) => each.id === opened);
    const video = asked ? (state.videos.find((each) => each.id === asked.video) ?? null) : selected;
    const restoration = asked ?? (video && done.findLast((each) => each.video === video.id)) ?? null;
    if (!video && !restoration) return null;
    const isOpen = Boolean(video?.source);
    const source = isOpen ? video.source : restoration?.source;
    return {
      isPicture: (video ?? restoration).is_picture === true,
      key: `${video?.id ?? ""} ${restoration?.id ?? ""}`,
      video,
      restoration,
      others: video ? done.filter((each) => each.video === video.id) : [],
      found: video?.found ?? null,
      before: source && {
        url: source,
        proxy: isOpen ? video.proxy : restoration.source_proxy,
        path: isOpen ? `/api/videos/${video.id}/proxy` : `/api/restorations/${restoration.id}/proxy`,
        body: isOpen ? {} : { of_source: true },
      },
      after: restoration && {
        url: restoration.result,
        proxy: restoration.result_proxy,
        path: `/api/restorations/${restoration.id}/proxy`,
      },
    };
  }

  #showFacts({ video, restoration, found }) {
    setText(document.getElementById("player-name"), video?.name ?? restoration.source_name);
    const seconds = found?.seconds || this.before.duration;
    const [width, height] = [found?.width || this.before.videoWidth, found?.height || this.before.videoHeight];
    const facts = [];
    if (seconds > 0 && Number.isFinite(seconds) && !this.#subject.isPicture) facts.push(durationText(seconds));
    if (width && height) {
      facts.push(`${width} × ${height}`);
      this.stage.style.setProperty("--aspect", width / height);
    }
    if (found?.rate && !this.#subject.isPicture) facts.push(`${Math.round(found.rate * 100) / 100} frames per second`);
    if (found?.is_interlaced) facts.push("interlaced");
    setText(document.getElementById("player-facts"), facts.join(" · "));
  }

  #showWhich({ restoration, others }) {
    const which = document.getElementById("which");
    show(which.parentElement, others.length > 1);
    const names = others.map((each) => `${each.id} ${each.name}`).join("\n");
    if (which.dataset.names !== names) {
      which.dataset.names = names;
      which.replaceChildren(...others.map((each) => make("option", { value: each.id, text: each.name })));
    }
    if (restoration) which.value = restoration.id;
    show(document.getElementById("modes"), Boolean(restoration));
    show(document.getElementById("hold"), Boolean(restoration) && this.#mode !== "before");
    for (const radio of document.querySelectorAll("input[name=mode]")) radio.disabled = !this.#subject.before && radio.value !== "after";
  }

  /** A still picture has no times: two images lie above each other. */
  #showStills(subject) {
    this.screens.before.show(null);
    this.screens.after.show(null);
    setAttribute(this.stills[0], "src", subject.before?.url ?? null);
    setAttribute(this.stills[1], "src", subject.after?.url ?? null);
    this.#showFacts(subject);
    this.#showWhich(subject);
    this.#showStillNote();
  }

  #showStillNote() {
    if (!this.#subject?.isPicture) return;
    const [before] = this.stills;
    const isWrong = before.hasAttribute("src") && before.complete && !before.naturalWidth;
    this.#showNote(isWrong ? { text: CANNOT_SHOW, share: null, isWrong } : null);
    if (before.naturalWidth) this.stage.style.setProperty("--aspect", before.naturalWidth / before.naturalHeight);
  }

  #showNote(note) {
    const node = document.getElementById("stage-note");
    show(node, note !== null);
    setText(node.querySelector("p"), note?.text);
    const bar = node.querySelector("progress");
    show(bar, note !== null && !note.isWrong);
    if (note?.share === null || note?.share === undefined) bar.removeAttribute("value");
    else bar.value = note.share;
  }

  /** The way in which before and after are shown: before, wipe, side or after. */
  get mode() {
    return this.#mode;
  }

  /** Change the way in which before and after are shown. */
  setMode(mode) {
    this.#setModeQuietly(mode);
    this.update();
  }

  #setModeQuietly(mode) {
    this.#mode = MODES.includes(mode) ? mode : "before";
    this.stage.dataset.mode = this.#mode;
    const radio = document.querySelector(`input[name=mode][value=${this.#mode}]`);
    radio.checked = true;
  }

  /** Show the result of a restoration, alone or beside its source. */
  openRestoration(id, mode) {
    this.#wanted = mode;
    this.store.open(id);
    if (this.#wanted) this.setMode(mode); // it was shown already
    this.#wanted = null;
    this.#scrollHere();
    this.stage.focus({ preventScroll: true });
  }

  #scrollHere() {
    // Beside the settings the player sticks, so its own place says nothing.
    const sticks = getComputedStyle(this.node.parentElement).position === "sticky";
    const { top } = (sticks ? this.node.closest(".work") : this.node).getBoundingClientRect();
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    window.scrollTo({ top: top + window.scrollY - EDGE_PX, behavior: isCalm ? "auto" : "smooth" });
  }

  /** Let that video lead which gives the sound; the other one follows. */
  #arrange() {
    if (!this.#subject || this.#subject.isPicture) return;
    const isReady = (video) => video.readyState > HTMLMediaElement.HAVE_NOTHING;
    const isCompared = this.#mode !== "before" && isReady(this.after);
    if (isCompared) this.pair.use(this.after, isReady(this.before) ? this.before : null);
    else this.pair.use(this.before, null);
    this.#showFacts(this.#subject);
    this.#showTime();
  }

  #hold(isHeld) {
    if (this.#isHeld === isHeld) return;
    this.#isHeld = isHeld;
    this.stage.toggleAttribute("data-held", isHeld);
    setAttribute(document.getElementById("hold"), "aria-pressed", isHeld);
  }

  #showTime() {
    setText(document.getElementById("time"), timeText(this.pair.time));
    setText(document.getElementById("time-all"), timeText(this.seconds));
  }

  #showPlaying() {
    const node = document.getElementById("play");
    const label = this.pair.isPlaying ? "Pause" : "Play";
    setIcon(node, this.pair.isPlaying ? "pause" : "play");
    setAttribute(node, "aria-label", label);
    setAttribute(node, "title", `${label} (space)`);
  }

  #toggleSound() {
    const { lead } = this.pair;
    lead.muted = !lead.muted;
    const node = document.getElementById("sound");
    setIcon(node, lead.muted ? "sound-off" : "sound");
    setAttribute(node, "aria-pressed", lead.muted);
  }

  #toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.node.requestFullscreen?.().catch(() => {});
  }

  #key(event) {
    const { target } = event;
    const isHere = target === document.body || target.closest?.("#look");
    if (!isHere || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!this.#subject || target.matches(IS_TYPED_IN) || document.querySelector("dialog[open]")) return;
    if (!document.getElementById("keys-on").checked && target === document.body) return;
    // These keys belong to what has the focus.
    if (target.matches("button, a, summary, input, [role=slider]") && [" ", "Enter"].includes(event.key) && !target.matches("[role=slider]")) return;
    if (target.matches("input") && event.key.startsWith("Arrow")) return;
    if (this.#subject.isPicture && event.key.toLowerCase() !== "b") return;
    const jump = event.shiftKey ? SHORT_JUMP_SECONDS : JUMP_SECONDS;
    const { pair } = this;
    const [first, last] = pair.range;
    const keys = {
      " ": () => pair.toggle(),
      arrowleft: () => pair.seek(pair.time - jump),
      arrowright: () => pair.seek(pair.time + jump),
      home: () => pair.seek(first),
      end: () => pair.seek(last),
      ",": () => pair.step(-1),
      ".": () => pair.step(1),
      b: () => this.#hold(this.#mode !== "before"),
      m: () => this.#toggleSound(),
      f: () => this.#toggleFullScreen(),
      i: () => this.dispatchEvent(new Event("in")),
      o: () => this.dispatchEvent(new Event("out")),
    };
    const action = keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
