// One or two videos of the same scene that play in step: one leads, the other follows it.

const FAR_SECONDS = 0.3; // further apart than this, the follower jumps
const GAIN_PER_SECOND = 6; // a drift is gone after about a sixth of a second
const MOST_CHANGE = 0.3; // of the speed of the follower
const LEAST_CHANGE = 0.004;
const SHOWN_MS = 250; // a browser shows the frame of a jump within this time
const STEPS_TRIED = 12;

/**
 * Two videos in step. Sends `time`, `play` and `change`. All times count from the first frame of `before`; the
 * elements count from the clock of their files, on which the first frame may come later than 0.
 */
export class Pair extends EventTarget {
  #isWanted = false;
  #offset = 0;
  #zeros = new Map();
  #frame = 1 / 25;
  #scrubbed = null;
  #stepping = Promise.resolve();
  /** Grows when a time or playing is asked for, so that a step under way knows that it is outdated. */
  #orders = 0;

  /**
   * @param {HTMLVideoElement} before The source.
   * @param {HTMLVideoElement} after The result, which may begin later.
   * @param {object} options `isLoop`: whether the videos begin again at their end.
   */
  constructor(before, after, { isLoop = false } = {}) {
    super();
    this.before = before;
    this.after = after;
    this.isLoop = isLoop;
    this.lead = before;
    this.follower = null;
    for (const video of [before, after]) {
      video.addEventListener("ended", () => video === this.lead && this.#end());
      video.addEventListener("timeupdate", () => video === this.lead && this.#tell("time"));
      video.addEventListener("seeked", () => video === this.lead && this.#seeked());
      video.addEventListener("loadedmetadata", () => this.#tell("change"));
      video.addEventListener("waiting", () => this.#hold(video));
      video.addEventListener("playing", () => this.#release(video));
    }
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }

  /** Whether the user wants it to play. */
  get isPlaying() {
    return this.#isWanted;
  }

  /** Seconds from the first frame of `before`. */
  get time() {
    return Math.max(0, this.#common(this.lead, this.lead.currentTime));
  }

  /** The first and the last time that can be shown. */
  get range() {
    const seconds = Number.isFinite(this.lead.duration) ? Math.max(0, this.lead.duration - this.#zero(this.lead)) : 0;
    const first = this.lead === this.after ? this.#offset : 0;
    return [first, first + seconds];
  }

  /** Seconds from one frame to the next. */
  get frame() {
    return this.#frame;
  }

  #zero(video) {
    return this.#zeros.get(video) ?? 0;
  }

  #common(video, own) {
    return own - this.#zero(video) + (video === this.after ? this.#offset : 0);
  }

  #own(video, common) {
    return common + this.#zero(video) - (video === this.after ? this.#offset : 0);
  }

  /**
   * Say how the videos lie in time.
   *
   * @param {number} offset Where `after` begins in `before`, in seconds.
   * @param {number} rate Frames per second.
   * @param {number} beforeZero When the first frame of `before` comes on the clock of its file, in seconds.
   * @param {number} afterZero The same of `after`.
   */
  setTimes(offset, rate, beforeZero = 0, afterZero = 0) {
    this.#offset = offset;
    this.#zeros = new Map([
      [this.before, beforeZero],
      [this.after, afterZero],
    ]);
    this.#frame = 1 / (rate > 0 ? rate : 25);
  }

  /**
   * Choose what plays.
   *
   * @param {HTMLVideoElement} lead The video that gives the time and the sound.
   * @param {HTMLVideoElement|null} follower The other one; null if it rests.
   */
  use(lead, follower) {
    if (this.lead === lead && this.follower === follower) return;
    const [time, wasPlaying, isMuted] = [this.time, this.#isWanted, this.lead.muted];
    this.pause();
    this.lead = lead;
    this.follower = follower;
    lead.muted = isMuted;
    if (follower) follower.muted = true;
    this.seek(time);
    if (wasPlaying) this.play();
    this.#tell("change");
  }

  /** Show another time. */
  seek(time) {
    this.#orders += 1;
    const [first, last] = this.range;
    const wanted = Math.min(Math.max(time, first), Math.max(first, last));
    this.#put(this.lead, wanted);
    if (this.follower) this.#put(this.follower, wanted);
    this.#tell("time");
  }

  /** Show another time while a handle is dragged: as often as the browser can. */
  scrub(time) {
    this.#scrubbed = time;
    if (!this.lead.seeking) this.#seeked();
  }

  #seeked() {
    const time = this.#scrubbed;
    this.#scrubbed = null;
    if (time === null) this.#tell("time");
    else this.seek(time);
  }

  #put(video, time) {
    if (video.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    video.currentTime = Math.max(0, this.#own(video, time));
  }

  /** Play. */
  play() {
    this.#orders += 1;
    if (this.lead.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    const [first, last] = this.range;
    if (this.time >= last - this.#frame / 2) this.seek(first);
    this.#isWanted = true;
    for (const video of this.#both()) {
      video.playbackRate = 1;
      video.play().catch(() => video === this.lead && this.pause());
    }
    this.#watch();
    this.#tell("play");
  }

  #both() {
    return this.follower ? [this.lead, this.follower] : [this.lead];
  }

  /** Pause, both at the same frame. */
  pause() {
    const wasPlaying = this.#isWanted;
    this.#isWanted = false;
    for (const video of this.#both()) video.pause();
    if (this.follower && wasPlaying) this.#put(this.follower, this.time);
    if (wasPlaying) this.#tell("play");
  }

  /** Play or pause. */
  toggle() {
    if (this.#isWanted) this.pause();
    else this.play();
  }

  #end() {
    const [first] = this.range;
    if (!this.isLoop || !this.#isWanted) {
      this.pause();
      return;
    }
    this.seek(first);
    for (const video of this.#both()) video.play().catch(() => {});
  }

  /** While the leading video waits for data, the other one waits too. */
  #hold(video) {
    if (video === this.lead && this.follower && this.#isWanted) this.follower.pause();
  }

  #release(video) {
    if (video === this.lead && this.follower?.paused && this.#isWanted) this.follower.play().catch(() => {});
  }

  #watch() {
    const { lead } = this;
    const next = (callback) => (lead.requestVideoFrameCallback ? lead.requestVideoFrameCallback(callback) : requestAnimationFrame(callback));
    const check = () => {
      if (!this.#isWanted || this.lead !== lead) return;
      this.#correct();
      this.#tell("time");
      next(check);
    };
    next(check);
  }

  /** Bring the follower to the time of the lead, by its speed if they are near each other. */
  #correct() {
    const video = this.follower;
    if (!video || video.seeking || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    const drift = video.currentTime - this.#own(video, this.time);
    if (Math.abs(drift) > FAR_SECONDS) {
      if (!video.ended) this.#put(video, this.time);
      return;
    }
    const change = Math.min(MOST_CHANGE, Math.max(-MOST_CHANGE, -drift * GAIN_PER_SECOND));
    const speed = Math.abs(change) < LEAST_CHANGE ? 1 : 1 + change;
    const isOther = Math.abs(video.playbackRate - speed) >= LEAST_CHANGE || (speed === 1 && video.playbackRate !== 1);
    if (isOther) video.playbackRate = speed;
  }

  /**
   * Go one frame forward or back, at the true times of the frames where the browser tells them. If another time is
   * wanted before the frame is shown, that holds.
   *
   * @param {number} direction 1 or -1.
   * @returns {Promise} Resolved once the frame is shown.
   */
  step(direction) {
    this.pause();
    const orders = this.#orders;
    this.#stepping = this.#stepping.then(() => this.#step(direction, orders)).catch(() => {});
    return this.#stepping;
  }

  async #step(direction, orders) {
    if (orders !== this.#orders) return;
    const { lead } = this;
    const begin = await this.#shown(lead.currentTime);
    // The first try finds frames of half the length: a result may have a frame for each field. The second lies a
    // quarter of a frame beyond the border, so inside the next frame, also where the rate varies.
    for (let tried = 1; tried <= STEPS_TRIED; tried += 1) {
      const frames = direction > 0 ? 0.625 * tried : -0.25 - (tried - 1) / 2;
      const wanted = begin + frames * this.#frame;
      if (orders !== this.#orders) return;
      if (wanted < 0 || wanted > lead.duration) break;
      const time = await this.#shown(wanted);
      if (Math.abs(time - begin) > this.#frame / 8) break;
    }
    if (orders !== this.#orders) return;
    if (this.follower) this.#put(this.follower, this.time);
    this.#tell("time");
  }

  /** Show a time of the leading video; return when its frame begins. */
  #shown(time) {
    const { lead } = this;
    const guess = Math.floor(time / this.#frame + 1e-3) * this.#frame;
    return new Promise((resolve) => {
      const late = setTimeout(() => resolve(guess), SHOWN_MS);
      lead.requestVideoFrameCallback?.((_, { mediaTime }) => {
        clearTimeout(late);
        resolve(mediaTime);
      });
      lead.currentTime = time;
    });
  }
}
