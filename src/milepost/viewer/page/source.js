// Where the page's data come from: the server, or what is embedded in an exported file. Nothing else of the page asks.
// Every answer is what the API sends; a refusal is thrown as Refused with its status and body, so that a caller can show it.

/**
 * @typedef {{name: string, start: number, stop: number}} Segment  frames [start, stop)
 * @typedef {{kind: string, start: number, stop: number, size: number|null}} Happening
 * @typedef {{names: string[], colours: string[], source: string}} Stages
 * @typedef {{name: string, version: string, fps: number, frames: number, cameras: string[], tasks: string[], truth: boolean,
 *   heads: Object<string, Stages>, models: {name: string, heads: string[]}[], weights: object|null, editable: boolean,
 *   why_not_editable: string, problems: string[], marks_file: string, event_kinds: string[], palette: string[]}} Dataset
 * @typedef {{curves: Object<string, (number|null)[]>, probabilities?: Object<string, (number|null)[]>, truth?: (number|null)[],
 *   true_stage?: (number|null)[], truth_source?: string, segments: Segment[], version: string}} Head
 * @typedef {{index: number, task: string|number, fps: number, length: number, success: boolean|null, facts: object, mark: string|null,
 *   note: string, cameras: object, heads: Object<string, Head>, weight: (number|null)[]|null,
 *   events: Object<string, Object<string, Happening[]>>}} Episode
 */

/** The server said no, or could not be asked (status 0). */
export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

/**
 * The same data in objects that inherit nothing: models, stages, facts and cameras may be called "constructor" or "__proto__", and what
 * is not there must not be found on Object.prototype.
 */
function bare(value) {
  if (Array.isArray(value)) return value.some((each) => each !== null && typeof each === "object") ? value.map(bare) : value;
  if (value === null || typeof value !== "object") return value;
  const own = Object.create(null);
  for (const [name, each] of Object.entries(value)) own[name] = bare(each);
  return own;
}

const holder = document.getElementById("embedded");
const embedded = holder ? bare(JSON.parse(holder.textContent)) : null;

/** An exported file: nothing can be changed, nothing is asked of anyone. */
export const exported = embedded !== null;

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    throw new Refused(0, { error: "the server does not answer; is `milepost view` still running?" });
  }
  const body = bare(await answer.json().catch(() => ({})));
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}

function put(path, body) {
  return ask(path, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** @returns {Promise<Dataset>} */
export const dataset = async () => (embedded ? embedded.dataset : ask("/api/dataset"));

/** The columns of the list. */
export const episodes = async () => (embedded ? embedded.episodes : ask("/api/episodes"));

/** The columns that are counted behind the list; answered when there are more of them. */
export const events = () => ask("/api/events");

/** @returns {Promise<Episode>} */
export async function episode(index) {
  if (!embedded) return ask(`/api/episodes/${index}`);
  const found = embedded.episode[index];
  if (!found) throw new Refused(404, { error: `this file has no episode ${index}` });
  return found;
}

/** Write one head's segments; Refused 409 if the annotation on disk is no longer `version`, 422 with faults if it does not pass. */
export const saveSegments = (index, body) => put(`/api/episodes/${index}/segments`, body);

/** Keep a mark ("keep", "drop", "unsure", null) and a note. */
export const saveMark = (index, mark, note) => put("/api/marks", { episode: index, mark, note });

/** The marks as the server exports them, with the delete command. */
export const marks = () => ask("/api/marks.json");

/** Why there is no film at a URL, in the server's words; "" if there is one and it is the browser that cannot play it. */
export async function refusal(url) {
  if (!url || url.startsWith("embedded:")) return "";
  try {
    const answer = await fetch(url, { credentials: "same-origin", headers: { Range: "bytes=0-0" } });
    if (answer.ok) {
      await answer.body?.cancel();
      return "";
    }
    const body = bare(await answer.json());
    return typeof body?.error === "string" ? body.error : "";
  } catch (error) {
    return "";
  }
}

const urls = new Map();

/** A URL a video element can play: the server's, or one made of the bytes in this file. */
export function playable(url) {
  if (!url || !url.startsWith("embedded:")) return url;
  if (!urls.has(url)) {
    const text = document.getElementById(url).textContent.trim();
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    urls.set(url, URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })));
  }
  return urls.get(url);
}
