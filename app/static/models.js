/** The tab of the models: what each is for; of the chosen one card, figures, drift, and the curves of its training. */

import { modelDetails, modelPath, servedModels, shownModel } from "./api.js";
import { trainingCurves } from "./charts.js";
import { byId, h, integer, percent } from "./dom.js";
import { driftOf, driftPanel, driftWord } from "./drift.js";
import { figuresOf, inputOf, photoFigures, precision, row, table, wide } from "./figures.js";
import { keyOption } from "./key.js";

const SERVED = ["Model", "Used for", "Accuracy on test images", "Accuracy on photos", "Drift"];
const FIGURES = ["Images", "Accuracy", "Loss", "Count"];

export async function refresh() {
  const model = shownModel();
  byId("models-curl").textContent = `curl '${new URL(modelPath(), document.baseURI).href}'${keyOption()}`;
  byId("models-problem").textContent = "";
  try {
    const served = await Promise.all((await servedModels()).map(whole));
    const shown = served.find(({ details }) => details.card.name === model);
    if (model === shownModel()) byId("models-content").replaceChildren(overview(served), ...contents(shown));
  } catch (error) {
    byId("models-content").replaceChildren();
    byId("models-problem").textContent = error.message;
  }
}

/** A served model with its card and its drift. */
async function whole({ name }) {
  const [details, drift] = await Promise.all([modelDetails(name), driftOf(name)]);
  return { details, drift };
}

/** Every served model: what it is used for, how good it is, and how far its predictions have drifted. */
function overview(served) {
  const rows = served.map(({ details, drift }) => row(details.card.name, use(details),
    accuracy(figuresOf(details).test), accuracy(photoFigures(details)), driftWord(drift)));
  return wide("Served models", table(SERVED, rows));
}

const accuracy = (figures) => (figures ? percent(figures.accuracy, 2) : "–");

function use({ default: usual, default_for_photos: photos }) {
  if (usual) return photos ? "All pictures" : "All pictures but photos";
  return photos ? "Photos" : "Requests that name it";
}

function contents({ details, drift }) {
  const { card } = details;
  const { photos: _, ...splits } = figuresOf(details);
  const photos = photoFigures(details);
  const detection = Object.entries(card.ood_auroc ?? {}).map(([kind, auroc]) => row(kind, auroc.toFixed(3)));
  return [
    h("h2", {}, card.name),
    h("dl", { className: "card" },
      ...facts(details).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    ...section(`Figures in ${precision(details)}`, FIGURES, Object.entries(splits).map(figures)),
    ...section("Figures on photos, in full precision", FIGURES, photos ? [figures(["photos", photos])] : []),
    ...driftPanel(drift, card.classes),
    ...section("Detection of pictures out of distribution (AUROC)", ["Kind", "AUROC"], detection),
    ...(card.history?.length ? [h("h3", {}, "Training"), trainingCurves(card.history)] : []),
  ];
}

/** The card in words. */
function facts(details) {
  const { card, version, engine } = details;
  return Object.entries({
    Version: version,
    Architecture: `${card.architecture}: ${card.description}`,
    Input: inputOf(details),
    Parameters: integer(card.parameters),
    Engine: engine,
    Recipe: `${card.recipe.name}, ${card.recipe.epochs} epochs, seed ${card.training.seed}`,
    Trained: `${card.training.date ?? ""} on ${card.training.cpu ?? card.training.device ?? ""}`,
    Temperature: card.temperature.toFixed(3),
    Licence: card.license,
    ...(card.notice ? { Notice: card.notice } : {}),
  });
}

const figures = ([split, { accuracy: share, loss, count }]) => (
  row(split, percent(share, 2), loss.toFixed(4), integer(count)));

/** A table under its heading, if it has rows. */
const section = (title, head, rows) => (rows.length ? [h("h3", {}, title), wide(title, table(head, rows))] : []);
