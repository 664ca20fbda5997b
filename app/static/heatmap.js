/** The heat map of a prediction over its picture. */

import { upload } from "./api.js";
import { h } from "./dom.js";

const START = 0.7;

/** Returns a figure: a picture with its result, the heat map over it, and a slider from the one to the other. */
export async function heatMap({ file, name, result: { model, label } }) {
  const blob = await (await upload(`explain?${new URLSearchParams({ model })}`, file)).blob();
  const map = h("img", { className: "map", src: URL.createObjectURL(blob), alt: `Heat map of what supports ${label}` });
  const picture = h("img", { className: "over", src: URL.createObjectURL(file), alt: "" });
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: START });
  slider.ariaLabel = `Strength of the heat map: ${name}`;
  const blend = () => { picture.style.opacity = 1 - slider.value; };
  slider.addEventListener("input", blend);
  blend();
  picture.addEventListener("error", () => { picture.remove(); slider.remove(); });
  return h("figure", { className: "heat" }, h("div", { className: "frame" }, map, picture), slider,
    h("figcaption", {}, `Green supports ${label}, purple opposes it.`));
}
