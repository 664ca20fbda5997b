/** The drift of a model: its last predictions against those for its validation images. */

import { getJson, modelPath } from "./api.js";
import { h, integer, percent, s } from "./dom.js";
import { row, table, wide } from "./figures.js";

const WORDS = { unknown: "Unknown", stable: "Stable", shifted: "Shifted", drifted: "Drifted" };

/** How the values of a bin are called; the first and the last bin are open. */
const between = (format) => (edges, bin) => {
  const [from, to] = [edges[bin - 1], edges[bin]].map((edge) => edge !== undefined && format(edge));
  if (!from) return `Below ${to}`;
  return to ? `${from} to ${to}` : `From ${from}`;
};

const FEATURES = {
  ood_score: { name: "Out-of-distribution score", value: between((edge) => edge.toFixed(2)) },
  confidence: { name: "Confidence", value: between((edge) => percent(edge, 2)) },
  class_id: { name: "Class", value: (_, bin, classes) => classes[bin] },
};

/** The drift of a model; where the service tells none, the reason. */
export const driftOf = (model) => getJson(`${modelPath(model)}/drift`)
  .catch(({ message }) => ({ status: "unknown", reason: message }));

/** A word for all features together. */
export const driftWord = ({ status }) => WORDS[status];

/** Returns a sentence, and for every feature its index and its histograms. */
export function driftPanel(drift, classes) {
  const features = drift.status === "unknown" ? [] : Object.entries(drift.features);
  const sections = features.map(([name, feature]) => h("div", {}, ...section(FEATURES[name], feature, classes)));
  return [
    h("h3", {}, "Drift"),
    h("p", { id: "drift" }, h("strong", {}, `${driftWord(drift)}.`), ` ${drift.reason ?? explanation(drift)}`),
    h("div", { className: "side histograms" }, ...sections),
  ];
}

function explanation({ status, predictions, predictions_needed: needed }) {
  const [count, least] = [predictions, needed].map(integer);
  return status === "unknown" ? `Predictions so far: ${count}. The population stability index needs at least ${least}.`
    : `The last ${count} predictions, compared with those for the validation images.`;
}

function section({ name, value }, { status, psi, edges, expected, found }, classes) {
  const [live, validation] = [found, expected].map(shares);
  const largest = Math.max(...live, ...validation);
  const rows = live.map((share, bin) => row(value(edges, bin, classes),
    pair(share / largest, validation[bin] / largest), percent(share), percent(validation[bin])));
  return [
    h("h4", {}, name),
    h("p", {}, `Population stability index ${psi.toFixed(2)}: ${WORDS[status].toLowerCase()}.`),
    wide(`${name}: predictions and validation images`,
      table(["Value", "", "Predictions", "Validation"], rows, "histogram")),
  ];
}

function shares(counts) {
  const all = counts.reduce((sum, each) => sum + each);
  return counts.map((each) => each / all);
}

/** Two bars: above that of the predictions, below that of the validation images. */
function pair(live, validation) {
  return s("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "fill", width: 100 * live, height: 4.5 }),
    s("rect", { class: "reference", y: 5.5, width: 100 * validation, height: 4.5 }));
}
