/** The figures of a model on the test images, as every tab shows them. */

import { bar, h, percent } from "./dom.js";

const inEightBits = (engine) => engine === "onnx-int8";

export const precision = ({ engine }) => (inEightBits(engine) ? "8 bits" : "full precision");

/** Which model the figures are of, where they are those of its card. */
export const source = (details) => `${details.card.name} ${details.version} in ${precision(details)}, as its model card says.`;

/** What the card knows, by split, of the graph that the service runs. */
export const figuresOf = ({ card, engine }) => (inEightBits(engine) ? card.int8_metrics : card.metrics);

/** Whether the model is made for photos, not for images like the data set's. */
export const forPhotos = ({ card }) => card.input.convention === "photo";

/** The figures on photos; only full precision is measured on them. */
export const photoFigures = ({ card }) => card.metrics.photos;

/** What the model takes, in words. */
export function inputOf({ card: { input } }) {
  const colour = input.channels === 1 ? "grey" : "colour";
  return `${input.width}x${input.height} pixels in ${colour}, ${input.convention === "photo" ? "photos" : "as in Fashion-MNIST"}`;
}

/** Why there are no test images and how to get them, in the service's own words. */
export function noData(reason) {
  return h("p", { className: "note" }, `The test images are not here. ${reason} Then reload this page.`);
}

/** Accuracy, by and large and by class; older cards have only the former. `images` says what was measured. */
export function summary(figures, images = "test images") {
  if (!figures) return [h("p", {}, `The model card has no figures of the ${images}.`)];
  return [
    h("p", { className: "big" }, percent(figures.accuracy, 2)),
    h("p", {}, `of ${figures.count.toLocaleString("en")} ${images} are right${interval(figures)}. ` +
      `Loss ${figures.loss.toFixed(4)}, Brier score ${figures.brier.toFixed(4)}, expected calibration error ${percent(figures.ece, 2)}.`),
    ...(figures.classes ? [h("h3", {}, "By class"), wide("Figures by class", byClass(figures.classes))] : []),
  ];
}

function interval({ accuracy_interval: limits }) {
  return limits ? `; 95% confidence interval ${percent(limits[0], 2)} to ${percent(limits[1], 2)}` : "";
}

/** Something that scrolls where it is wider than the page. */
export const wide = (label, content) => h("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: label }, content);

function byClass(classes) {
  const head = ["Class", "F1", "", "Precision", "Recall", "Images"].map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {})));
  const rows = classes.filter((one) => one.support).map((one) => h("tr", {},
    h("th", { scope: "row" }, one.label), h("td", {}, percent(one.f1)), h("td", { width: "40%" }, bar(one.f1)),
    h("td", {}, percent(one.precision)), h("td", {}, percent(one.recall)), h("td", {}, String(one.support))));
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}
