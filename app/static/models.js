/** The tab of the models: what each is for; of the chosen one the card in words, its figures, the curves of its training. */

import { modelDetails, modelPath, servedModels, shownModel } from "./api.js";
import { trainingCurves } from "./charts.js";
import { byId, h, percent } from "./dom.js";
import { figuresOf, inputOf, photoFigures, precision, wide } from "./figures.js";

const FIGURES = ["Images", "Accuracy", "Loss", "Count"];

export async function refresh() {
  const model = shownModel();
  byId("models-curl").textContent = `curl '${new URL(modelPath(), document.baseURI).href}'`;
  byId("models-problem").textContent = "";
  try {
    const [served, details] = await Promise.all([servedModels(), modelDetails()]);
    if (model === shownModel()) byId("models-content").replaceChildren(overview(served), ...contents(details));
  } catch (error) {
    byId("models-content").replaceChildren();
    byId("models-problem").textContent = error.message;
  }
}

/** Every served model and what it is used for. */
function overview(served) {
  const rows = served.map((one) => h("tr", {}, h("th", { scope: "row" }, one.name), h("td", {}, use(one)),
    h("td", {}, one.metrics.test ? percent(one.metrics.test.accuracy, 2) : "–"), h("td", {}, one.engine)));
  return wide("Served models", table(["Model", "Answers", "Accuracy on test images", "Engine"], rows));
}

function use({ default: usual, default_for_photos: photos }) {
  if (usual) return photos ? "All pictures" : "All pictures but photos";
  return photos ? "Photos" : "Requests that name it";
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
    h("h2", {}, card.name),
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
