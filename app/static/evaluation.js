/** The tab that tells how good the model is on the 10,000 test images: measured, or without the data as its card says. */

import { absolute, address, getJson, lacksData, modelDetails, shownModel } from "./api.js";
import { byId, h } from "./dom.js";
import { reliabilityDiagram } from "./charts.js";
import { figuresOf, forPhotos, noData, photoFigures, precision, source, summary, wide } from "./figures.js";
import { read, write } from "./url.js";

const POLL_MILLISECONDS = 300;
let openCell = () => {};
let shown = 0;

/** `open` shows the images behind a cell of the confusion matrix; `served` are the models to compare with. */
export function start(open, served) {
  openCell = open;
  byId("other").append(...served.map(({ name }) => h("option", { value: name }, name)));
  byId("other").addEventListener("change", () => { write({ other: byId("other").value }); refresh(); });
}

export async function refresh() {
  const mine = (shown += 1);
  byId("other").value = read("other");
  byId("evaluation-curl").textContent = `curl '${absolute("evaluate")}'`;
  show("Measuring on the test images …", []);
  const stop = follow();
  try {
    const names = [shownModel(), read("other")].filter((name, place, all) => name && all.indexOf(name) === place);
    const columns = await Promise.all(names.map(column));
    if (mine === shown) show(columns.map(([status]) => status).join(" "), columns.map(([, content]) => content));
  } catch (error) {
    if (mine === shown) show("", [], error.message);
  } finally {
    stop();
  }
}

/** The status and the figures of one model. */
async function column(model) {
  const [details, { evaluation, reason }] = await Promise.all([modelDetails(model), measurement(model)]);
  return evaluation ? measured(details, evaluation) : known(details, reason);
}

/** Show the figures of the models side by side. */
function show(status, columns, problem = "") {
  byId("evaluation-status").textContent = status;
  byId("evaluation-problem").textContent = problem;
  byId("evaluation-content").replaceChildren(...columns.map((content) => h("div", {}, ...content)));
}

/** What the service measures, or the reason why it has no data set. */
async function measurement(model) {
  try {
    return { evaluation: await getJson(address("evaluate", { model })) };
  } catch (error) {
    if (lacksData(error)) return { reason: error.message };
    throw error;
  }
}

/** The gallery shows the predictions of the chosen model only, so only its cells open. */
function measured(details, evaluation) {
  const status = `${evaluation.model} ${evaluation.model_version} in ${precision(details)}, measured here in ${evaluation.seconds.toFixed(1)} s.`;
  const open = details.card.name === shownModel() ? openCell : null;
  return [status, [h("h3", {}, details.card.name), ...contents(details, evaluation, open), ...onPhotos(details)]];
}

function known(details, reason) {
  const name = h("h3", {}, details.card.name);
  return [source(details), [noData(reason), name, ...contents(details, figuresOf(details).test), ...onPhotos(details)]];
}

/** Show how far the measurement has come until the returned function is called. */
function follow() {
  const progress = byId("evaluation-progress");
  progress.removeAttribute("value");
  progress.hidden = false;
  const timer = setInterval(async () => {
    const { completed, total } = await getJson(address("evaluate/progress")).catch(() => ({}));
    if (completed) Object.assign(progress, { max: total, value: completed });
  }, POLL_MILLISECONDS);
  return () => { clearInterval(timer); progress.hidden = true; };
}

/** All figures on the test images that there are; where `open` is given, it shows the images of a cell. */
function contents(details, figures, open) {
  const calibrated = forPhotos(details) ? "The confidence is calibrated on photos, so on these images it may be off."
    : "The confidence is calibrated on images of the data set.";
  return [
    ...summary(figures),
    ...(figures?.confusion_matrix ? mistakes(figures, open) : []),
    ...(figures?.reliability ? calibration(figures, calibrated) : []),
  ];
}

/** What the card knows of photos. Its interval is left out: it takes photos of one person for independent. */
function onPhotos(details) {
  const figures = photoFigures(details);
  if (!figures) return [];
  return [
    h("h2", {}, "How good is it on photos?"),
    h("p", {}, "As the model card says, in full precision. Each photo was answered by a model that no photo of the same person " +
      "trained. For a shoe of another kind, any of the three kinds is right."),
    ...summary({ ...figures, accuracy_interval: null }, "photos"),
    ...(figures.reliability ? calibration(figures, "The confidence is calibrated on these photos.") : []),
  ];
}

function mistakes(figures, open) {
  return [
    h("h3", {}, "What is taken for what"),
    h("p", {}, `Rows are true classes, columns predicted ones.${open ? " A click on a number shows the images." : ""}`),
    wide("Confusion matrix", confusion(figures, open)),
  ];
}

function calibration({ reliability }, calibrated) {
  return [
    h("h3", {}, "Can its confidence be believed?"),
    h("p", {}, `Of the answers given with a confidence, the share that is right. On the dashed line both are the same. ${calibrated}`),
    reliabilityDiagram(reliability),
  ];
}

function confusion({ classes, confusion_matrix: matrix }, open) {
  const labels = classes.map((one) => one.label);
  const rows = matrix.map((counts, row) => h("tr", {}, h("th", { scope: "row" }, labels[row]),
    ...counts.map((count, column) => h("td", {}, cell(labels[row], labels[column], count, count / Math.max(1, classes[row].support), open)))));
  return h("table", { className: "confusion" },
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "colgroup", colSpan: labels.length }, "Predicted class")),
      h("tr", {}, h("th", {}, "True class"), ...labels.map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows));
}

function cell(label, predicted, count, share, open) {
  if (!count) return "";
  const className = `share-${1 + [0.02, 0.1, 0.5].filter((limit) => share > limit).length}`;
  const title = `${count} images of ${label} taken for ${predicted}`;
  if (!open) return h("span", { className, title }, String(count));
  return h("button", { type: "button", className, ariaLabel: title, title, onclick: () => open(label, predicted) }, String(count));
}
