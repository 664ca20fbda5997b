/** The figures of a model on the test images, as every tab shows them. */

import { bar, h, integer, percent } from "./dom.js";

const inEightBits = (engine) => engine === "onnx-int8";

export const precision = ({ engine }) => (inEightBits(engine) ? "8 bits" : "full precision");

/** Which model the figures are of, where they are those of its card. */
export const source = (details) => (
  `${details.card.name} ${details.version} in ${precision(details)}, as its model card says.`);

/** What the card knows, by split, of the graph that the service runs. */
export const figuresOf = ({ card, engine }) => (inEightBits(engine) ? card.int8_metrics : card.metrics);

/** Whether the model is made for photos, not for images like the data set's. */
export const forPhotos = ({ card }) => card.input.convention === "photo";

/** The figures on photos; only full precision is measured on them. */
export const photoFigures = ({ card }) => card.metrics.photos;

/** What the model takes, in words. */
export function inputOf({ card: { input } }) {
  const colour = input.channels === 1 ? "grey" : "colour";
  const kind = input.convention === "photo" ? "photos" : "as in Fashion-MNIST";
  return `${input.width}x${input.height} pixels in ${colour}, ${kind}`;
}

/** Why there are no test images and how to get them, in the service's own words. */
export function noData(reason) {
  return h("p", { className: "note" }, `This service has no test images. ${reason} Then reload this page.`);
}

/** Accuracy, by and large and by class; older cards have only the former. `images` says what was measured. */
export function summary(figures, images = "test images") {
  if (!figures) return [h("p", {}, `The model card has no figures of the ${images}.`)];
  return [
    h("p", { className: "big" }, percent(figures.accuracy, 2)),
    h("p", {}, `of ${integer(figures.count)} ${images} are right${interval(figures)}. ` +
      `Loss ${figures.loss.toFixed(4)}, Brier score ${figures.brier.toFixed(4)}, ` +
      `expected calibration error ${percent(figures.ece, 2)}.`),
    ...(figures.classes ? [h("h3", {}, "By class"), wide("Figures by class", byClass(figures.classes))] : []),
  ];
}

function interval({ accuracy_interval: limits }) {
  return limits ? `; 95% confidence interval ${percent(limits[0], 2)} to ${percent(limits[1], 2)}` : "";
}

/** Something that scrolls where it is wider than the page. */
export const wide = (label, content) => (
  h("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: label }, content));

/** A row of a table: its name, and the contents of its cells. */
export const row = (name, ...cells) => (
  h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((content) => h("td", {}, content))));

/** A table of rows under a head; a column without a title shows bars. */
export function table(head, rows, className = "") {
  const cells = head.map((title) => (title ? h("th", { scope: "col" }, title) : h("td")));
  return h("table", { className }, h("thead", {}, h("tr", {}, ...cells)), h("tbody", {}, ...rows));
}

function byClass(classes) {
  const rows = classes.filter((one) => one.support).map(({ label, f1, precision: right, recall, support }) => (
    row(label, percent(f1), bar(f1), percent(right), percent(recall), integer(support))));
  return table(["Class", "F1", "", "Precision", "Recall", "Images"], rows, "classes");
}
