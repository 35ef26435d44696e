// Requests to the server. Every failure is an ApiError with one sentence for the user.

const GONE = "The program that serves this page does not answer.";

/** A request that failed. */
export class ApiError extends Error {
  /**
   * @param {string} sentence What went wrong, for the user.
   * @param {number} status The status of the answer; 0 if there was none.
   * @param {object} answer The answer.
   */
  constructor(sentence, status = 0, answer = {}) {
    super(sentence);
    this.status = status;
    this.answer = answer;
  }
}

async function ask(method, path, body) {
  const options = { method, cache: "no-store", credentials: "same-origin" };
  if (method !== "GET") {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(GONE);
  }
  if (response.status === 204) return null;
  return readAnswer(response.status, await response.text().catch(() => ""));
}

/** Return the answer of a request; an error becomes an ApiError. */
export function readAnswer(status, text) {
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    if (status < 400) throw new ApiError("The answer was not understood. Load the page again.", status);
  }
  if (status >= 400) throw new ApiError(answer.error ?? GONE, status, answer);
  return answer;
}

/** Get something. */
export const get = (path) => ask("GET", path);

/** Send something, or have something done. */
export const post = (path, body) => ask("POST", path, body);

/** Delete something. */
export const remove = (path) => ask("DELETE", path);
