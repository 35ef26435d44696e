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

function amount(video, choices) {
  const { found, estimate } = video;
  const start = choices.start_seconds ?? 0;
  const end = Math.min(found.seconds, choices.end_seconds ?? found.seconds);
  const people = found.people.filter((person) => isRestored(person, choices));
  const faces = Math.round(people.reduce((sum, person) => sum + facesOf(person, start, end), 0));
  const frames = found.frames * Math.max(0, (end - start) / found.seconds || 0);
  const { seconds_per_face: perFace, seconds_per_frame: perFrame } = estimate ?? {};
  return { faces, seconds: typeof perFace === "number" ? faces * perFace + frames * (perFrame ?? 0) : null };
}

/**
 * Work out what the choices leave.
 *
 * @param {object} video A video of the state, with `found`.
 * @param {object} choices What the user chose.
 * @returns {object} `faces`, `seconds` (null: not known) and `savedSeconds` (by the quicker way; null: nothing).
 */
export function estimated(video, choices) {
  const { faces, seconds } = amount(video, choices);
  if (seconds === null) return { faces, seconds, savedSeconds: null };
  // What the quicker way takes is known for the choices that the server has.
  const known = amount(video, video.choices).seconds;
  const quick = video.estimate.seconds_with_key_frames;
  const savedSeconds = typeof quick === "number" && known > quick ? seconds * (1 - quick / known) : null;
  return { faces, seconds: choices.key_frames && savedSeconds !== null ? seconds - savedSeconds : seconds, savedSeconds };
}
