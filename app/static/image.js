/** One test image, large, with its bars and its heat map. */

import { address, call, upload } from "./api.js";
import { bars, byId, h, percent } from "./dom.js";
import { heatMap } from "./heatmap.js";

const dialog = byId("gallery-detail");
let shown = null;

const fileOf = async ({ index }) => (await call(`gallery/images/${index}.png`)).blob();

/** Returns the image of an item. It comes by a call, since an address alone sends no API key. */
export function thumbnail(item) {
  const image = h("img", { className: "pixels", alt: `Test image ${item.index}` });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  fileOf(item).then((file) => { image.src = URL.createObjectURL(file); }, () => {});
  return image;
}

/** `step` goes to the image before (-1) or after (1), `leave` to none. */
export function start(step, leave) {
  const go = (by) => step(by).catch((error) => byId("gallery-content").replaceChildren(problem(error)));
  byId("image-previous").addEventListener("click", () => go(-1));
  byId("image-next").addEventListener("click", () => go(1));
  byId("image-close").addEventListener("click", leave);
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("keydown", ({ key, target }) => {
    if (target.type !== "range" && key in KEYS) go(KEYS[key]);
  });
}

const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

const problem = (error) => h("p", { className: "problem" }, error.message);

/** Close the dialog; the focus goes to the tile of its image. */
export function close() {
  if (!dialog.open) return;
  dialog.close();
  byId(`image-${shown.index}`)?.focus();
  shown = null;
}

/** Show an item of the gallery, the first or last of all or neither. */
export async function show(item, { first, last }) {
  shown = item;
  if (!dialog.open) dialog.showModal();
  byId("image-previous").ariaDisabled = String(first);
  byId("image-next").ariaDisabled = String(last);
  byId("gallery-title").textContent = `Test image ${item.index}: predicted ${item.predicted}, true class ${item.label}`;
  byId("gallery-content").ariaBusy = "true";
  const content = await evidence(item).catch((error) => [problem(error)]);
  if (item !== shown) return;
  byId("gallery-content").replaceChildren(...content);
  byId("gallery-content").ariaBusy = "false";
}

async function evidence(item) {
  const file = await fileOf(item);
  const result = await (await upload(address("predict"), file)).json();
  return [
    h("p", {}, `${result.label}, ${percent(result.confidence)}, by ${result.model}.`),
    await heatMap({ file, name: `test image ${item.index}`, result }),
    bars(result.probabilities),
  ];
}
