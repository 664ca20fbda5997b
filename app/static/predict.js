/** The tab that classifies: pictures come in by drop, paste, file, camera or sample, answers fill a table. */

import { absolute, address, upload } from "./api.js";
import { bars, byId, h, percent } from "./dom.js";

const SAMPLES = ["shirt", "trouser", "dress", "sneaker", "ankle-boot", "sandal", "bag"];
const AT_ONCE = 4;
const answers = [];
let waiting = 0;
let done = 0;

export function start() {
  byId("samples").append(...SAMPLES.map((name) => h("li", {}, sample(name))));
  for (const id of ["files", "camera"]) byId(id).addEventListener("change", (event) => take(event.target));
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); classify([...event.dataTransfer.files]); });
  document.addEventListener("paste", (event) => classify([...event.clipboardData.files]));
  byId("csv").addEventListener("click", download);
  byId("clear").addEventListener("click", clear);
  refresh();
}

export function refresh() {
  byId("predict-curl").textContent = `curl -F file=@shirt.png '${absolute("predict")}'`;
}

function sample(name) {
  const title = name.replace("-", " ");
  const image = h("img", { src: `page/examples/${name}.png`, alt: `Drawing of a ${title}`, width: 56, height: 56 });
  return h("button", { type: "button", title, onclick: async () => {
    const response = await fetch(image.src);
    classify([new File([await response.blob()], `${name}.png`, { type: "image/png" })]);
  } }, image);
}

function take(input) {
  classify([...input.files]);
  input.value = "";
}

async function classify(files) {
  if (!files.length) return;
  waiting += files.length;
  showProgress();
  const rows = files.map((file) => ({ file, row: addRow(file) }));
  const next = async () => {
    for (let job = rows.shift(); job; job = rows.shift()) await answer(job);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
}

async function answer({ file, row }) {
  try {
    const prediction = await (await upload(address("predict", { image: "true" }), file)).json();
    answers.push({ file: file.name, ...prediction });
    fill(row, file, prediction);
  } catch (error) {
    answers.push({ file: file.name, error: error.message });
    row.append(h("td", { colSpan: 4 }, h("p", { className: "problem" }, error.message)));
  }
  done += 1;
  showProgress();
}

function addRow(file) {
  const picture = h("img", { src: URL.createObjectURL(file), alt: `Your picture ${file.name}` });
  picture.addEventListener("error", () => picture.replaceWith("no preview"));
  const row = h("tr", {}, h("td", {}, picture, h("div", { className: "name" }, file.name)));
  byId("answers").tBodies[0].prepend(row);
  byId("answers").hidden = byId("answers-buttons").hidden = false;
  return row;
}

function fill(row, file, prediction) {
  const seen = h("img", { className: "pixels", src: prediction.image, alt: "The pixels that the network saw" });
  const size = h("div", { className: "name" });
  seen.addEventListener("load", () => { size.textContent = `${seen.naturalWidth}x${seen.naturalHeight} pixels`; });
  const why = h("button", { type: "button" }, "Why?");
  const remarks = h("td", {}, remarksOf(prediction), why);
  why.addEventListener("click", () => explain(why, remarks, file, prediction));
  row.append(
    h("td", {}, seen, size),
    h("td", {}, h("div", { className: "answer" }, prediction.label), h("div", {}, percent(prediction.confidence)),
      h("div", { className: "name" }, prediction.model),
      h("div", { className: "name choice" }, `Why this network: ${prediction.model_choice}`)),
    h("td", {}, bars(prediction.probabilities)),
    remarks,
  );
}

function remarksOf(prediction) {
  const items = prediction.warnings.map((warning) => h("li", {}, warning));
  const steps = h("details", {}, h("summary", {}, "What was done"), h("ul", { className: "remarks" },
    ...prediction.preprocessing.steps.map((step) => h("li", {}, step))));
  return h("div", {}, items.length ? h("ul", { className: "remarks" }, ...items) : "", steps);
}

async function explain(button, cell, file, prediction) {
  button.disabled = true;
  try {
    const blob = await (await upload(`explain?${new URLSearchParams({ model: prediction.model })}`, file)).blob();
    button.replaceWith(h("figure", {},
      h("img", { src: URL.createObjectURL(blob), alt: `Heat map of what speaks for ${prediction.label}` }),
      h("figcaption", { className: "name" }, `Green supports ${prediction.label}, purple opposes it.`)));
  } catch (error) {
    button.disabled = false;
    cell.append(h("p", { className: "problem", role: "alert" }, error.message));
  }
}

function showProgress() {
  const bar = byId("predict-progress");
  bar.max = waiting;
  bar.value = done;
  bar.hidden = done === waiting;
  const failed = answers.filter((each) => each.error).length;
  byId("predict-status").textContent = `${done} of ${waiting} answered${failed ? `, ${failed} could not be` : ""}.`;
}

function clear() {
  answers.length = waiting = done = 0;
  byId("answers").tBodies[0].replaceChildren();
  byId("answers").hidden = byId("answers-buttons").hidden = byId("predict-progress").hidden = true;
  byId("predict-status").textContent = "";
}

function download() {
  const labels = Object.keys(answers.find((each) => each.probabilities)?.probabilities ?? {});
  const columns = ["file", "label", "confidence", "in_distribution", "ood_score", "model", "model_choice", "error"];
  const lines = answers.map((each) => [
    ...columns.map((name) => each[name] ?? ""), (each.warnings ?? []).join(" "), ...labels.map((label) => each.probabilities?.[label] ?? ""),
  ]);
  const text = [[...columns, "warnings", ...labels], ...lines].map((line) => line.map(cell).join(",")).join("\r\n");
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "fashionnet.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

/** A cell of a CSV file; one that a spreadsheet would take for a formula is made text. */
function cell(value) {
  const text = String(value);
  const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
