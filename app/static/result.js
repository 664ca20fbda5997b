/** One picture and its result: a line, and all that is known when it is opened. */

import { address, servedModels, upload } from "./api.js";
import { bars, h, s } from "./dom.js";
import { wide } from "./figures.js";
import { heatMap } from "./heatmap.js";
import { verdict } from "./verdict.js";

/** Returns the list item for a picture; `remove` is called when it is removed. */
export function createRow(file, remove) {
  const picture = h("img", { src: URL.createObjectURL(file), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", {}, "–")));
  const line = h("summary", {}, picture, h("span", { className: "words" }, h("span", { className: "said" }, "Waiting …"), h("span", { className: "name" }, file.name)));
  return h("li", {}, h("details", {}, line),
    h("button", { type: "button", className: "remove", ariaLabel: `Remove ${file.name}`, onclick: remove }, "×"));
}

/** Show the prediction in its row. The body is made when it is first opened, which keeps hundreds of rows fast. */
export function showPrediction(row, file, prediction, open) {
  const { kind, heading, words } = verdict(prediction);
  row.className = kind;
  say(row, h("strong", { className: "answer" }, heading), words ? ` ${words}` : "");
  const details = row.querySelector("details");
  details.addEventListener("toggle", () => details.append(body(file, prediction)), { once: true });
  details.open = open;
}

export function showError(row, message) {
  row.className = "failed";
  say(row, h("span", { className: "problem" }, message));
}

const say = (row, ...content) => row.querySelector(".said").replaceChildren(...content);

function body(file, prediction) {
  return h("div", { className: "body" },
    h("div", { className: "evidence" }, warnings(prediction), probabilities(prediction), reason(prediction), steps(prediction), actions(file, prediction)),
    h("div", { className: "pictures" }, original(file, prediction), modelInput(prediction)));
}

function warnings({ warnings: sentences, in_distribution: known, label }) {
  const closest = known ? [] : [`Of the ten classes, ${label} is the closest.`];
  const all = [...sentences, ...closest];
  return all.length ? h("ul", { className: "warnings" }, ...all.map((sentence) => h("li", {}, sentence))) : "";
}

/** The bars; of a picture out of distribution on demand, since it belongs to none of the classes. */
function probabilities({ probabilities: shares, in_distribution: known }) {
  if (known) return bars(shares);
  return h("details", { className: "anyway" }, h("summary", {}, "Probabilities if it were one of the ten"), bars(shares));
}

const reason = ({ model, model_choice: why }) => h("p", { className: "choice" }, `Model: ${model}. Reason: ${why}.`);

const steps = ({ preprocessing }) => h("details", { className: "steps" }, h("summary", {}, "Preprocessing"),
  h("ul", {}, ...preprocessing.steps.map((step) => h("li", {}, step))));

/** The picture with the bounding box of the article. */
function original(file, { preprocessing: { crop_box: box } }) {
  const image = h("img", { src: URL.createObjectURL(file), alt: `Your picture ${file.name}` });
  const frame = h("div", { className: "frame" }, image);
  image.addEventListener("error", () => frame.replaceChildren("No preview."));
  image.addEventListener("load", () => { if (box) frame.append(outline(box, image)); });
  return h("figure", {}, frame, h("figcaption", {}, box ? "Your picture and the bounding box" : "Your picture"));
}

function outline([left, top, right, bottom], { naturalWidth, naturalHeight }) {
  return s("svg", { class: "box", viewBox: `0 0 ${naturalWidth} ${naturalHeight}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { x: left, y: top, width: right - left, height: bottom - top }));
}

function modelInput({ image }) {
  const caption = h("figcaption", {}, "The model's input");
  const picture = h("img", { className: "pixels", src: image, alt: "The model's input" });
  picture.addEventListener("load", () => { caption.textContent = `The model's input, ${picture.naturalWidth}x${picture.naturalHeight} pixels`; });
  return h("figure", {}, picture, caption);
}

/** Buttons whose results follow them. */
function actions(file, prediction) {
  const place = h("div", { className: "more", ariaLive: "polite" });
  const action = (className, text, work) => h("button", { type: "button", className, ariaLabel: `${text}: ${file.name}`, onclick: async (event) => {
    const button = event.currentTarget;
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    place.append(await work(file, prediction).catch((error) => {
      button.ariaDisabled = "false";
      return h("p", { className: "problem" }, error.message);
    }));
  } }, text);
  return h("div", {}, h("p", { className: "buttons" }, action("explain", "Heat map", heatMap), action("compare", "Compare models", comparison)), place);
}

/** The answers of every served model in one row. */
async function comparison(file) {
  const names = (await servedModels()).map(({ name }) => name);
  const answers = await Promise.all(names.map(async (model) => (await upload(address("predict", { model, image: "true" }), file)).json()));
  return wide(`Models compared on ${file.name}`, h("table", { className: "comparison" },
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, h("tr", {}, ...answers.map((answer) => h("td", {}, ...compared(answer)))))));
}

function compared(prediction) {
  const { heading, words } = verdict(prediction);
  return [h("strong", {}, heading), h("br"), words, h("img", { src: prediction.image, alt: `The input of ${prediction.model}` })];
}
