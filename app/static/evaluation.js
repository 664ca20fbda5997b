/** The tab that tells how good the network is on the 10,000 test images. */

import { absolute, address, chosenModel, getJson } from "./api.js";
import { bar, byId, h, percent } from "./dom.js";
import { reliabilityDiagram } from "./charts.js";

const POLL_MILLISECONDS = 300;
let openCell = () => {};

export function start(open) {
  openCell = open;
}

export async function refresh() {
  const model = chosenModel();
  byId("evaluation-curl").textContent = `curl '${absolute("evaluate")}'`;
  byId("evaluation-problem").textContent = "";
  byId("evaluation-content").replaceChildren();
  byId("evaluation-status").textContent = "Measuring on the test images …";
  const stop = follow();
  try {
    const evaluation = await getJson(address("evaluate"));
    if (model !== chosenModel()) return;
    byId("evaluation-status").textContent = `${evaluation.model} ${evaluation.model_version}, measured in ${evaluation.seconds.toFixed(1)} s.`;
    byId("evaluation-content").replaceChildren(...contents(evaluation));
  } catch (error) {
    byId("evaluation-status").textContent = "";
    byId("evaluation-problem").textContent = error.message;
  } finally {
    stop();
  }
}

/** Show how far the measurement has come until the returned function is called. */
function follow() {
  const progress = byId("evaluation-progress");
  progress.removeAttribute("value");
  progress.hidden = false;
  const timer = setInterval(async () => {
    const { measured, count } = await getJson(address("evaluate/progress")).catch(() => ({}));
    if (measured) Object.assign(progress, { max: count, value: measured });
  }, POLL_MILLISECONDS);
  return () => { clearInterval(timer); progress.hidden = true; };
}

function contents(evaluation) {
  const [low, high] = evaluation.accuracy_interval;
  return [
    h("p", { className: "big" }, percent(evaluation.accuracy, 2)),
    h("p", {}, `of ${evaluation.count.toLocaleString("en")} test images are right; 95 % confidence interval ${percent(low, 2)} to ${percent(high, 2)}. ` +
      `Loss ${evaluation.loss.toFixed(4)}, Brier score ${evaluation.brier.toFixed(4)}, expected calibration error ${percent(evaluation.ece, 2)}.`),
    h("h3", {}, "By class"), h("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Figures by class" }, byClass(evaluation.classes)),
    h("h3", {}, "What is taken for what"),
    h("p", {}, "Rows are true, columns predicted. A click shows the images."),
    h("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: "Confusion matrix" }, confusion(evaluation)),
    h("h3", {}, "Can its confidence be believed?"),
    h("p", {}, "Of the answers given with a confidence, the share that is right. On the dashed line both are the same."),
    reliabilityDiagram(evaluation.reliability),
  ];
}

function byClass(classes) {
  const head = ["Class", "F1", "", "Precision", "Recall", "Images"].map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {})));
  const rows = classes.map((one) => h("tr", {},
    h("th", { scope: "row" }, one.label), h("td", {}, percent(one.f1)), h("td", { width: "40%" }, bar(one.f1)),
    h("td", {}, percent(one.precision)), h("td", {}, percent(one.recall)), h("td", {}, String(one.support))));
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

function confusion({ classes, confusion_matrix: matrix }) {
  const labels = classes.map((one) => one.label);
  const rows = matrix.map((counts, row) => h("tr", {}, h("th", { scope: "row" }, labels[row]),
    ...counts.map((count, column) => h("td", {}, cell(labels[row], labels[column], count, count / Math.max(1, classes[row].support))))));
  return h("table", { className: "confusion" },
    h("thead", {}, h("tr", {}, h("td", {}), ...labels.map((label) => h("th", { scope: "col" }, label)))),
    h("tbody", {}, ...rows));
}

function cell(label, predicted, count, share) {
  if (!count) return "";
  const shade = `share-${1 + [0.02, 0.1, 0.5].filter((limit) => share > limit).length}`;
  const title = `${count} images of ${label} taken for ${predicted}`;
  return h("button", { type: "button", className: shade, ariaLabel: title, title, onclick: () => openCell(label, predicted) }, String(count));
}
