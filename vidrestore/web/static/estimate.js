// How many faces the user's choices leave, and how long they take.

/**
 * Count the faces of a person in a part of a video. Within an appearance they are taken as even.
 *
 * @param {object} person A person of `found`.
 * @param {number} start Where the part begins, in seconds.
 * @param {number} end Where it ends.
 * @returns {number} The number of faces.
 */
export function facesOf(person, start = 0, end = Infinity) {
  let sum = 0;
  for (const [from, to, faces] of person.appearances) {
    const shared = Math.min(end, to) - Math.max(start, from);
    if (shared >= 0) sum += to > from ? (faces * shared) / (to - from) : faces;
  }
  return sum;
}

/** Whether a person is restored. */
export function isRestored(person, choices) {
  return (choices.people?.includes(person.id) ?? true) && person.eye_px >= choices.least_eye_px;
}

/**
 * Work out what the choices leave.
 *
 * @param {object} video A video of the state, with `found`.
 * @param {object} choices What the user chose.
 * @returns {object} `faces`, `seconds` (null: not known) and `savedSeconds` (by the quicker way; null: nothing).
 */
export function estimated(video, choices) {
  const { found, estimate } = video;
  const start = choices.start_seconds ?? 0;
  const end = choices.end_seconds ?? found.seconds;
  const people = found.people.filter((person) => isRestored(person, choices));
  const faces = Math.round(people.reduce((sum, person) => sum + facesOf(person, start, end), 0));
  if (typeof estimate?.seconds_per_face !== "number") return { faces, seconds: null, savedSeconds: null };
  const frames = (end - start) * found.rate;
  const seconds = faces * estimate.seconds_per_face + frames * (estimate.seconds_per_frame ?? 0);
  const quick = estimate.seconds_with_key_frames;
  const isQuicker = typeof quick === "number" && estimate.seconds > 0 && quick < estimate.seconds;
  const savedSeconds = isQuicker ? seconds * (1 - quick / estimate.seconds) : null;
  return { faces, seconds: choices.key_frames && isQuicker ? seconds - savedSeconds : seconds, savedSeconds };
}
