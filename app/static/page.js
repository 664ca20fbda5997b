/** Tabs and the choice of a model; each tab has a module of its own. */

import { modelDetails, servedModels } from "./api.js";
import { byId, h } from "./dom.js";
import * as evaluation from "./evaluation.js";
import * as gallery from "./gallery.js";
import { accuracySentence } from "./intro.js";
import * as models from "./models.js";
import * as predict from "./predict.js";

const TABS = { predict, gallery, evaluation, models };
const tabs = [...document.querySelectorAll("[role=tab]")];

/** Show a tab and bring it up to date. */
function select(name, { focus = false } = {}) {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  TABS[name].refresh();
}

const selected = () => tabs.find((tab) => tab.getAttribute("aria-selected") === "true").getAttribute("aria-controls");

function move(event) {
  const place = tabs.indexOf(event.target);
  const last = tabs.length - 1;
  const next = { ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  select(tabs[next].getAttribute("aria-controls"), { focus: true });
}

/** Fill the choice of models; where one model answers photos and another the rest, the service may choose. */
function offer(served) {
  const usual = served.find((each) => each.default).name;
  const forPhotos = served.find((each) => each.default_for_photos).name;
  const names = served.map(({ name }) => h("option", { value: name, selected: name === usual }, name));
  byId("model").append(...names);
  byId("model").dataset.default = usual;
  if (forPhotos !== usual) byId("model").prepend(h("option", { value: "", selected: true }, "Automatic"));
}

async function start() {
  for (const tab of tabs) tab.addEventListener("click", () => select(tab.getAttribute("aria-controls")));
  byId("tabs").addEventListener("keydown", move);
  byId("model").addEventListener("change", () => select(selected()));
  evaluation.start((label, predicted) => { gallery.choose(label, predicted); select("gallery", { focus: true }); });
  predict.start();
  try {
    const served = await servedModels();
    offer(served);
    const { card } = await modelDetails();
    gallery.start(card.classes);
    select("predict");
    byId("accuracy").textContent = await accuracySentence(served);
  } catch (error) {
    byId("predict-problem").textContent = error.message;
  }
}

start();
