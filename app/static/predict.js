/** The tab that classifies: from pictures to results. */

import { absolute } from "./api.js";
import { byId } from "./dom.js";
import { keyOption } from "./key.js";
import * as results from "./results.js";
import { samples } from "./samples.js";
import * as sketch from "./sketch.js";
import { picturesAmong, picturesOf } from "./transfer.js";
import * as webcam from "./webcam.js";

export { stop as leave } from "./webcam.js";

let file = "shirt.png";

export function start() {
  results.start();
  const use = (picture) => classify([picture]);
  sketch.start(use);
  webcam.start(use, report);
  byId("samples").append(...samples(attempt));
  for (const id of ["files", "camera", "folder"]) byId(id).addEventListener("change", ({ target }) => take(target));
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); receive(event.dataTransfer); });
  document.addEventListener("paste", (event) => { if (!event.target.closest?.("#key")) receive(event.clipboardData); });
  refresh();
}

export function refresh() {
  byId("predict-curl").textContent = `curl -F ${quoted(file)} '${absolute("predict")}'${keyOption()}`;
}

const report = (problem) => { byId("predict-problem").textContent = problem; };

/** Classify what an input for files or for a folder has. */
async function take(input) {
  const files = [...input.files];
  input.value = "";
  await attempt(() => (input.webkitdirectory ? picturesAmong(files) : files));
}

/** Classify what was dropped or pasted, on whatever tab. */
async function receive(transfer) {
  byId("tab-predict").click();
  byId("tab-predict").focus();
  await attempt(() => picturesOf(transfer));
}

/** Classify the pictures that `find` returns, or say why there are none. */
async function attempt(find) {
  try {
    classify(await find());
  } catch (error) {
    report(error.message);
  }
}

function classify(files) {
  report("");
  if (files.length) file = files[files.length - 1].name;
  refresh();
  results.classify(files);
}

/** The form field of a file for curl in a shell. */
function quoted(name) {
  if (/^[\w.-]+$/.test(name)) return `file=@${name}`;
  const escaped = name.replace(/["\\]/g, "\\$&").replaceAll("'", "'\\''");
  return `'file=@"${escaped}"'`;
}
