/** The tab of test images: filters, tiles, and the ten bars of the one that is clicked; without the data, the card's figures. */

import { absolute, address, call, getJson, lacksData, modelDetails, upload } from "./api.js";
import { bars, byId, h, percent } from "./dom.js";
import { figuresOf, noData, precision, summary } from "./figures.js";

let seed = 0;
let shown = 0;

export function start(classes) {
  for (const select of document.querySelectorAll("[data-classes]")) {
    select.append(...classes.map((name) => h("option", { value: name }, name)));
  }
  byId("gallery-form").addEventListener("change", refresh);
  byId("gallery-form").addEventListener("submit", (event) => event.preventDefault());
  byId("gallery-more").addEventListener("click", () => { seed += 1; refresh(); });
}

/** Show the images behind a cell of the confusion matrix. */
export function choose(label, predicted) {
  const form = byId("gallery-form").elements;
  form.only.value = "all";
  form.label.value = label;
  form.predicted.value = predicted;
}

export async function refresh() {
  const mine = (shown += 1);
  const query = { ...Object.fromEntries(new FormData(byId("gallery-form"))), seed, rows: 4, columns: 10 };
  byId("gallery-curl").textContent = `curl -f '${absolute("gallery", query)}' -o gallery.png`;
  byId("gallery-problem").textContent = "";
  byId("gallery-status").textContent = "Looking for images …";
  try {
    const { items } = await getJson(address("gallery/items", query));
    if (mine === shown) show(items.length ? `${items.length} images.` : "There is no such image.", { items });
  } catch (error) {
    const details = lacksData(error) && await modelDetails().catch(() => null);
    if (mine !== shown) return;
    if (details) show(`${details.card.name} ${details.version} in ${precision(details)}, as its model card says.`, { details, reason: error.message });
    else show("", { problem: error.message });
  }
}

/** Show test images, or, where `details` of the model are given instead, what its card knows of them. */
function show(status, { items = [], details = null, reason = "", problem = "" }) {
  byId("gallery-form").hidden = byId("gallery-command").hidden = Boolean(details);
  byId("gallery-status").textContent = status;
  byId("gallery-problem").textContent = problem;
  byId("gallery-items").replaceChildren(...items.map((item) => h("li", {}, tile(item))));
  byId("gallery-detail").replaceChildren(...(details ? [noData(reason), ...summary(figuresOf(details).test)] : []));
}

const source = (item) => `gallery/images/${item.index}.png`;

function tile(item) {
  const mark = item.correct ? "✓" : "✗";
  const button = h("button", { type: "button", "aria-pressed": "false" },
    h("img", { className: "pixels", src: source(item), alt: `Test image ${item.index}` }),
    h("span", { className: item.correct ? "" : "wrong" }, `${mark} ${item.predicted}`),
    h("span", {}, `true ${item.label}`));
  button.addEventListener("click", () => detail(button, item));
  return button;
}

async function detail(button, item) {
  for (const other of byId("gallery-items").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  const place = byId("gallery-detail");
  try {
    const blob = await (await call(source(item))).blob();
    const prediction = await (await upload(address("predict"), blob)).json();
    place.replaceChildren(
      h("h3", {}, `Test image ${item.index}: ${prediction.label}, ${percent(prediction.confidence)}; truly ${item.label}`),
      bars(prediction.probabilities));
  } catch (error) {
    place.replaceChildren(h("p", { className: "problem" }, error.message));
  }
}
