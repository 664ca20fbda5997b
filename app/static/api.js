/** The service, as the page calls it: whatever goes wrong is an Error whose message is a sentence for people. */

import { byId } from "./dom.js";
import { askForKey, storedKey, withKey } from "./key.js";

/** The chosen model; empty where the service chooses by the picture. */
export const chosenModel = () => byId("model").value;

/** The one whose figures are shown. */
export const shownModel = () => chosenModel() || byId("model").dataset.default;

/** The path with its query; the model is the chosen one unless the query names another. */
export function address(path, query = {}) {
  const all = Object.entries({ model: chosenModel(), ...query }).filter(([, value]) => value !== "");
  return all.length ? `${path}?${new URLSearchParams(all)}` : path;
}

/** The absolute address, for a curl command. */
export const absolute = (path, query) => new URL(address(path, query), document.baseURI).href;

const RETRIES = 20;

/** Fetch; where the service wants a key (401), ask for it, and where it is busy (429), wait as long as it says. */
async function patient(path, options) {
  for (let tries = 0; ; tries += 1) {
    const key = storedKey();
    const response = await fetch(path, withKey(options, key));
    if (response.status === 401 && (key !== storedKey() || await askForKey())) continue;
    if (response.status !== 429 || tries === RETRIES) return response;
    await pause(Number(response.headers.get("Retry-After")) || 1, options?.signal);
  }
}

/** Wait, but not on after the signal. */
const pause = (seconds, signal) => new Promise((resolve) => {
  setTimeout(resolve, 1000 * seconds);
  signal?.addEventListener("abort", resolve);
});

export async function call(path, options) {
  let response;
  try {
    response = await patient(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The service cannot be reached: is it still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const sentence = problem.detail || `The service answered with status ${response.status}.`;
  throw Object.assign(new Error(sentence), { type: problem.type });
}

/** Whether a call failed because the service has no data set. */
export const lacksData = (error) => error.type === "urn:fashionnet:problem:data-unavailable";

export const getJson = async (path) => (await call(path)).json();

export const modelPath = (name = shownModel()) => `models/${encodeURIComponent(name)}`;

/** The card of a model, by default the one whose figures are shown, and the engine that runs it. */
export const modelDetails = (name) => getJson(modelPath(name));

/** The served models in short. */
export const servedModels = async () => (await getJson("models")).models;

/** POST a picture as the form field `file`. */
export function upload(path, file, signal) {
  const form = new FormData();
  form.append("file", file, file.name || "picture.png");
  return call(path, { method: "POST", body: form, signal });
}
