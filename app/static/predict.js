/** The tab that classifies: from pictures to results. */

import { absolute } from "./api.js";
import { byId } from "./dom.js";
import * as results from "./results.js";
import { samples } from "./samples.js";

let file = "shirt.png";

export function start() {
  results.start();
  byId("samples").append(...samples((drawing) => classify([drawing])));
  for (const id of ["files", "camera"]) byId(id).addEventListener("change", (event) => take(event.target));
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); classify([...event.dataTransfer.files]); });
  document.addEventListener("paste", (event) => classify([...event.clipboardData.files]));
  refresh();
}

export function refresh() {
  byId("predict-curl").textContent = `curl -F ${quoted(file)} '${absolute("predict")}'`;
}

function take(input) {
  classify([...input.files]);
  input.value = "";
}

function classify(files) {
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
