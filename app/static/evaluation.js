/** The tab that tells how good the model is on the 10,000 test images: measured, or without the data as its card says. */

import { absolute, address, chosenModel, getJson, lacksData, modelDetails } from "./api.js";
import { byId, h } from "./dom.js";
import { reliabilityDiagram } from "./charts.js";
import { figuresOf, forPhotos, noData, photoFigures, precision, summary, wide } from "./figures.js";

const POLL_MILLISECONDS = 300;
let openCell = () => {};

export function start(open) {
  openCell = open;
}

export async function refresh() {
  const model = chosenModel();
  byId("evaluation-curl").textContent = `curl '${absolute("evaluate")}'`;
  show("Measuring on the test images …", []);
  const stop = follow();
  try {
    const [details, { evaluation, reason }] = await Promise.all([modelDetails(), measurement()]);
    if (model === chosenModel()) show(...(evaluation ? measured(details, evaluation) : known(details, reason)));
  } catch (error) {
    if (model === chosenModel()) show("", [], error.message);
  } finally {
    stop();
  }
}

function show(status, content, problem = "") {
  byId("evaluation-status").textContent = status;
  byId("evaluation-problem").textContent = problem;
  byId("evaluation-content").replaceChildren(...content);
}

/** What the service measures, or the reason why it has no data set. */
async function measurement() {
  try {
    return { evaluation: await getJson(address("evaluate")) };
  } catch (error) {
    if (lacksData(error)) return { reason: error.message };
    throw error;
  }
}

function measured(details, evaluation) {
  const status = `${evaluation.model} ${evaluation.model_version} in ${precision(details)}, measured here in ${evaluation.seconds.toFixed(1)} s.`;
  return [status, [...contents(details, evaluation, openCell), ...onPhotos(details)]];
}

function known(details, reason) {
  const status = `${details.card.name} ${details.version} in ${precision(details)}, as its model card says.`;
  return [status, [noData(reason), ...contents(details, figuresOf(details).test), ...onPhotos(details)]];
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
    h("p", {}, `Rows are true, columns predicted.${open ? " A click shows the images." : ""}`),
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
    h("thead", {}, h("tr", {}, h("td", {}), ...labels.map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows));
}

function cell(label, predicted, count, share, open) {
  if (!count) return "";
  const className = `share-${1 + [0.02, 0.1, 0.5].filter((limit) => share > limit).length}`;
  const title = `${count} images of ${label} taken for ${predicted}`;
  if (!open) return h("span", { className, title }, String(count));
  return h("button", { type: "button", className, ariaLabel: title, title, onclick: () => open(label, predicted) }, String(count));
}
