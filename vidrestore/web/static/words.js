// Numbers, times and sizes as people write them.

const counts = new Intl.NumberFormat("en-US");

/** "1 face", "3,120 faces". */
export function counted(number, one, many = `${one}s`) {
  return `${counts.format(number)} ${number === 1 ? one : many}`;
}

/** A position in a video: "0:07.4", "12:30.0", "1:02:03.5". */
export function timeText(seconds) {
  const tenths = Math.round(Math.max(0, seconds) * 10);
  const whole = Math.floor(tenths / 10);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = `${String(whole % 60).padStart(2, "0")}.${tenths % 10}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** A position without tenths: "0:07", "1:02:03". */
export function clockText(seconds) {
  return timeText(Math.floor(seconds)).slice(0, -2);
}

/**
 * Read a position in a video.
 *
 * @param {string} text Such as "75", "1:15", "1:15.5" or "1:02:03.5".
 * @returns {number|null} Seconds; null if it is no time.
 */
export function readTime(text) {
  const parts = text.trim().replace(",", ".").split(":");
  const isTime = parts.length <= 3 && parts.every((part, at) => (at === parts.length - 1 ? /^\d+(\.\d*)?$/ : /^\d+$/).test(part));
  return isTime ? parts.reduce((sum, part) => sum * 60 + Number(part), 0) : null;
}

/** How long something takes or lasts: "8 s", "42 min", "3 h 20 min", "2 days". */
export function durationText(seconds) {
  if (seconds < 59.5) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
  return `${Math.round(minutes / 1440)} days`;
}

/** "3.4 MB", "12 GB". */
export function sizeText(bytes) {
  let [value, unit] = [bytes / 1000, "kB"];
  for (const larger of ["MB", "GB", "TB"]) {
    if (value < 999.5) break;
    [value, unit] = [value / 1000, larger];
  }
  return `${value < 10 && unit !== "kB" ? value.toFixed(1) : counts.format(Math.round(value))} ${unit}`;
}

/** A day: "today, 14:05" or "May 3, 1994". */
export function dateText(seconds) {
  const date = new Date(seconds * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  const time = date.toLocaleTimeString("en-US", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return isToday ? `today, ${time}` : date.toLocaleDateString("en-US", { year: "numeric", month: "short", day: "numeric" });
}

/** A long name or path without its middle; its ends tell more. */
export function shortened(text, most = 64) {
  const letters = [...text];
  if (letters.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${letters.slice(0, half).join("")}…${letters.slice(-half).join("")}`;
}

/** The name of a person, typed or not. */
export function personName(video, person) {
  return video.names[person.id] || `Person ${person.id}`;
}

/** "Anna", "Anna and Ben", "Anna, Ben and 3 more". */
export function listed(names) {
  if (names.length <= 1) return names.join("");
  if (names.length <= 3) return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, 2).join(", ")} and ${names.length - 2} more`;
}
