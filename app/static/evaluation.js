/** The tab that tells how good a model is on the test images: measured, or without the data as its card says. */

import { absolute, address, getJson, lacksData, modelDetails, shownModel } from "./api.js";
import { byId, h, integer } from "./dom.js";
import { reliabilityDiagram } from "./charts.js";
import { figuresOf, forPhotos, noData, photoFigures, precision, row, source, summary, wide } from "./figures.js";
import { keyOption } from "./key.js";
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
  byId("evaluation-curl").textContent = `curl '${absolute("evaluate")}'${keyOption()}`;
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

function measured(details, evaluation) {
  const { model, model_version: version, seconds } = evaluation;
  const status = `${model} ${version} in ${precision(details)}, measured here in ${seconds.toFixed(1)} s.`;
  return [status, [h("h2", {}, details.card.name), ...contents(details, evaluation, openCell), ...onPhotos(details)]];
}

function known(details, reason) {
  const name = h("h2", {}, details.card.name);
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
    ...(figures?.confusion_matrix ? mistakes(details.card.name, figures, open) : []),
    ...(figures?.reliability ? calibration(figures, calibrated) : []),
  ];
}

/** What the card knows of photos. Its interval is left out: it takes photos of one person for independent. */
function onPhotos(details) {
  const figures = photoFigures(details);
  if (!figures) return [];
  return [
    h("h2", {}, "How good is it on photos?"),
    h("p", {}, "These figures are from the model card, in full precision. Each photo was classified by a network " +
      "that was trained without photos of the same person. For a shoe of another kind, Sandal, Sneaker and Ankle " +
      "boot are all right."),
    ...summary({ ...figures, accuracy_interval: null }, "photos"),
    ...(figures.reliability ? calibration(figures, "The confidence is calibrated on these photos.") : []),
  ];
}

function mistakes(model, figures, open) {
  return [
    h("h3", {}, "Confusion matrix"),
    h("p", {}, `Rows are true classes, columns predicted ones.${open ? " A click on a number shows the images." : ""}`),
    wide(`Confusion matrix of ${model}`, confusion(model, figures, open)),
  ];
}

function calibration({ reliability }, calibrated) {
  return [
    h("h3", {}, "Calibration"),
    h("p", {}, "For each range of confidence, the chart shows the share of right predictions. On the dashed line, " +
      `confidence and share are equal. ${calibrated}`),
    reliabilityDiagram(reliability),
  ];
}

function confusion(model, { classes, confusion_matrix: matrix }, open) {
  const labels = classes.map((one) => one.label);
  const rows = matrix.map((counts, i) => row(labels[i], ...counts.map((count, j) => (
    count ? cell({ model, label: labels[i], predicted: labels[j] }, count, count / classes[i].support, open) : ""))));
  return h("table", { className: "confusion" },
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "colgroup", colSpan: labels.length }, "Predicted class")),
      h("tr", {}, h("th", {}, "True class"), ...labels.map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows));
}

/** A count; where `open` is given, a button that shows the images of one `label` that `model` takes for another. */
function cell(images, count, share, open) {
  const className = `share-${1 + [0.02, 0.1, 0.5].filter((limit) => share > limit).length}`;
  const title = `${integer(count)} images of ${images.label} taken for ${images.predicted} by ${images.model}`;
  if (!open) return h("span", { className, title }, integer(count));
  const onclick = () => open(images);
  return h("button", { type: "button", className, ariaLabel: title, title, onclick }, integer(count));
}
