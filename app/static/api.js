/** The service, as the page calls it: whatever goes wrong is an Error whose message is a sentence for people. */

import { byId } from "./dom.js";

/** The chosen network; empty where the service shall choose by the picture. */
export const chosenModel = () => byId("model").value;

/** The one whose figures are shown. */
export const shownModel = () => chosenModel() || byId("model").dataset.default;

/** The path with its query, the chosen network in it. */
export function address(path, query = {}) {
  const all = Object.entries({ ...query, model: chosenModel() }).filter(([, value]) => value !== "");
  return `${path}?${new URLSearchParams(all)}`;
}

/** The absolute address, for a curl command. */
export const absolute = (path, query) => new URL(address(path, query), document.baseURI).href;

export async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service cannot be reached: is it still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || `The service answered with status ${response.status}.`), { type: problem.type });
}

/** Whether a call failed because the service has no data set. */
export const lacksData = (error) => error.type === "urn:fashionnet:problem:data-unavailable";

export const getJson = async (path) => (await call(path)).json();

export const modelPath = () => `models/${encodeURIComponent(shownModel())}`;

/** The card of the network whose figures are shown, and the engine that runs it. */
export const modelDetails = () => getJson(modelPath());

/** POST a picture as the form field `file`. */
export function upload(path, file) {
  const form = new FormData();
  form.append("file", file, file.name || "picture.png");
  return call(path, { method: "POST", body: form });
}
