/** The tab of the model: its card in words, its figures, the curves of its training. */

import { modelDetails, modelPath, shownModel } from "./api.js";
import { trainingCurves } from "./charts.js";
import { byId, h, percent } from "./dom.js";
import { figuresOf, inputOf, photoFigures, precision, wide } from "./figures.js";

const FIGURES = ["Images", "Accuracy", "Loss", "Count"];

export async function refresh() {
  const model = shownModel();
  byId("models-curl").textContent = `curl '${new URL(modelPath(), document.baseURI).href}'`;
  byId("models-problem").textContent = "";
  try {
    const details = await modelDetails();
    if (model === shownModel()) byId("models-content").replaceChildren(...contents(details));
  } catch (error) {
    byId("models-content").replaceChildren();
    byId("models-problem").textContent = error.message;
  }
}

function contents(details) {
  const { card, version, engine } = details;
  const rows = {
    Name: `${card.name} ${version}`,
    Architecture: `${card.architecture}: ${card.description}`,
    Input: inputOf(details),
    Parameters: card.parameters.toLocaleString("en"),
    Engine: engine,
    Recipe: `${card.recipe.name}, ${card.recipe.epochs} epochs, seed ${card.training.seed}`,
    Trained: `${card.training.date ?? ""} on ${card.training.cpu ?? card.training.device ?? ""}`,
    Temperature: card.temperature.toFixed(3),
    Licence: card.license,
    ...(card.notice ? { Notice: card.notice } : {}),
  };
  const { photos: _, ...splits } = figuresOf(details);
  const figures = Object.entries(splits).map(row);
  const photos = photoFigures(details);
  const outOfDistribution = Object.entries(card.ood_auroc ?? {}).map(([kind, auroc]) => h("tr", {}, h("th", { scope: "row" }, kind), h("td", {}, auroc.toFixed(3))));
  return [
    h("dl", { className: "card" }, ...Object.entries(rows).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    ...section(`Figures in ${precision(details)}`, FIGURES, figures),
    ...(photos ? section("Figures on photos, in full precision", FIGURES, [row(["photos", photos])]) : []),
    ...(outOfDistribution.length ? section("Detection of pictures out of distribution (AUROC)", ["Kind", "AUROC"], outOfDistribution) : []),
    ...(card.history?.length ? [h("h3", {}, "Training"), trainingCurves(card.history)] : []),
  ];
}

function row([split, one]) {
  return h("tr", {}, h("th", { scope: "row" }, split),
    h("td", {}, percent(one.accuracy, 2)), h("td", {}, one.loss.toFixed(4)), h("td", {}, one.count.toLocaleString("en")));
}

/** A table under its heading. */
const section = (title, head, rows) => [h("h3", {}, title), wide(title, table(head, rows))];

function table(head, rows) {
  return h("table", {}, h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, ...rows));
}
