/** Tabs and the choice of a model; each tab has a module of its own. */

import { chosenModel, modelDetails, servedModels, shownModel } from "./api.js";
import * as copy from "./copy.js";
import { byId, h } from "./dom.js";
import * as evaluation from "./evaluation.js";
import * as gallery from "./gallery.js";
import { accuracySentence } from "./intro.js";
import * as models from "./models.js";
import * as predict from "./predict.js";
import { read, write } from "./url.js";

const TABS = { predict, gallery, evaluation, models };
const tabs = [...document.querySelectorAll("[role=tab]")];

/** Show what the address says: the tab, brought up to date, of the model. */
function show() {
  const name = Object.hasOwn(TABS, read("tab")) ? read("tab") : "predict";
  for (const tab of tabs) {
    const panel = tab.getAttribute("aria-controls");
    const chosen = panel === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(panel).hidden = !chosen;
    if (!chosen) TABS[panel].leave?.();
  }
  byId("model").value = read("model");
  if (byId("model").selectedIndex < 0) byId("model").selectedIndex = 0;
  TABS[name].refresh();
}

/** Go to a tab. */
function select(name, { focus = false } = {}) {
  write({ tab: name === "predict" ? "" : name, image: "" });
  show();
  if (focus) byId(`tab-${name}`).focus();
}

function move(event) {
  const place = tabs.indexOf(event.target);
  const last = tabs.length - 1;
  const [after, before] = [place === last ? 0 : place + 1, place === 0 ? last : place - 1];
  const next = { ArrowRight: after, ArrowLeft: before, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  select(tabs[next].getAttribute("aria-controls"), { focus: true });
}

/** Fill the choice of models, the default first; where another one answers photos, the service may choose. */
function offer(served) {
  const usual = served.find((each) => each.default).name;
  const forPhotos = served.find((each) => each.default_for_photos).name;
  const others = served.map(({ name }) => name).filter((name) => name !== usual);
  byId("model").append(...[usual, ...others].map((name) => h("option", { value: name }, name)));
  byId("model").dataset.default = usual;
  if (forPhotos !== usual) byId("model").prepend(h("option", { value: "" }, "Automatic"));
}

/** Show the images behind a cell of a confusion matrix. */
function openCell({ model, label, predicted }) {
  const chosen = model === shownModel() ? chosenModel() : model;
  write({ tab: "gallery", model: chosen, only: "", label, predicted, page: "", image: "" });
  show();
  byId("tab-gallery").focus();
}

async function start() {
  for (const tab of tabs) tab.addEventListener("click", () => select(tab.getAttribute("aria-controls")));
  byId("tabs").addEventListener("keydown", move);
  byId("model").addEventListener("change", ({ target }) => { write({ model: target.value }); show(); });
  addEventListener("popstate", show);
  copy.start();
  predict.start();
  try {
    const served = await servedModels();
    offer(served);
    evaluation.start(openCell, served);
    const { card } = await modelDetails();
    gallery.start(card.classes);
    show();
    byId("accuracy").textContent = await accuracySentence(served);
  } catch (error) {
    predict.refresh();
    byId("predict-problem").textContent = error.message;
  }
}

start();
