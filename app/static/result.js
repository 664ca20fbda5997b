/** One picture and its result: a line, and all that is known when it is opened. */

import { address, servedModels, upload } from "./api.js";
import { bars, h, s } from "./dom.js";
import { wide } from "./figures.js";
import { heatMap } from "./heatmap.js";
import { verdict } from "./verdict.js";

/** Returns the list item for a picture under its name in the list; `remove` is called when it is removed. */
export function createRow({ file, name }, remove) {
  const picture = h("img", { src: URL.createObjectURL(file), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { className: "picture" }, "–")));
  const words = h("span", { className: "words" },
    h("span", { className: "said" }, "Waiting …"), h("span", { className: "name" }, name));
  return h("li", {}, h("details", {}, h("summary", {}, picture, words)),
    h("button", { type: "button", className: "remove", ariaLabel: `Remove ${name}`, onclick: remove }, "×"));
}

/** Show the prediction in its row. The body is made when it is first opened, which keeps hundreds of rows fast. */
export function showPrediction(entry, open) {
  const { row, result } = entry;
  const { kind, heading, words } = verdict(result);
  row.className = kind;
  say(row, h("strong", { className: "answer" }, heading), words ? ` ${words}` : "");
  const details = row.querySelector("details");
  details.addEventListener("toggle", () => details.append(body(entry)), { once: true });
  details.open = open;
}

export function showError({ row, result }) {
  row.className = "failed";
  say(row, result.error);
}

const say = (row, ...content) => row.querySelector(".said").replaceChildren(...content);

function body(entry) {
  const { result } = entry;
  return h("div", { className: "body" },
    h("div", { className: "evidence" },
      warnings(result), probabilities(result), reason(result), steps(result), actions(entry)),
    h("div", { className: "pictures" }, original(entry), modelInput(result)));
}

function warnings({ warnings: sentences, in_distribution: known, label }) {
  const closest = known ? [] : [`Of the ten classes, ${label} is the closest.`];
  const all = [...sentences, ...closest];
  return all.length ? h("ul", { className: "warnings" }, ...all.map((sentence) => h("li", {}, sentence))) : "";
}

/** The bars; of a picture out of distribution on demand, since it belongs to none of the classes. */
function probabilities({ probabilities: shares, in_distribution: known }) {
  if (known) return bars(shares);
  const title = h("summary", {}, "Probabilities if it were one of the ten");
  return h("details", { className: "anyway" }, title, bars(shares));
}

const reason = ({ model, model_choice: why }) => h("p", { className: "choice" }, `Model: ${model}. Reason: ${why}.`);

const steps = ({ preprocessing }) => h("details", { className: "steps" }, h("summary", {}, "Preprocessing"),
  h("ul", {}, ...preprocessing.steps.map((step) => h("li", {}, step))));

/** The picture with the bounding box of the article. */
function original({ file, name, result: { preprocessing: { crop_box: box } } }) {
  const image = h("img", { src: URL.createObjectURL(file), alt: `Your picture ${name}` });
  const frame = h("div", { className: "frame" }, image);
  image.addEventListener("error", () => frame.replaceChildren("No preview."));
  image.addEventListener("load", () => { if (box) frame.append(outline(box, image)); });
  return h("figure", {}, frame, h("figcaption", {}, box ? "Your picture and the bounding box" : "Your picture"));
}

function outline([left, top, right, bottom], { naturalWidth, naturalHeight }) {
  const viewBox = `0 0 ${naturalWidth} ${naturalHeight}`;
  return s("svg", { class: "box", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { x: left, y: top, width: right - left, height: bottom - top }));
}

function modelInput({ image }) {
  const caption = h("figcaption", {}, "The model's input");
  const picture = h("img", { className: "pixels", src: image, alt: "The model's input" });
  picture.addEventListener("load", () => {
    caption.textContent = `The model's input, ${picture.naturalWidth}x${picture.naturalHeight} pixels`;
  });
  return h("figure", {}, picture, caption);
}

/** Buttons whose results follow them. */
function actions(entry) {
  const place = h("div", { className: "more", ariaLive: "polite" });
  const buttons = [
    action(entry, place, { className: "explain", text: "Heat map", label: "Heat map", work: heatMap }),
    action(entry, place, { className: "compare", text: "Compare", label: "Compare models", work: comparison }),
  ];
  return h("div", {}, h("p", { className: "buttons" }, ...buttons), place);
}

/** A button that puts what `work` returns into a place, once. */
function action(entry, place, { className, text, label, work }) {
  const button = h("button", { type: "button", className, ariaLabel: `${label}: ${entry.name}` }, text);
  button.addEventListener("click", async () => {
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    place.append(await work(entry).catch((error) => {
      button.ariaDisabled = "false";
      return h("p", { className: "problem" }, error.message);
    }));
  });
  return button;
}

/** The answers of every served model in one row. */
async function comparison({ file, name }) {
  const names = (await servedModels()).map(({ name }) => name);
  const ask = async (model) => (await upload(address("predict", { model, image: "true" }), file)).json();
  const answers = await Promise.all(names.map(ask));
  return wide(`Models compared on ${name}`, h("table", { className: "comparison" },
    h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, h("tr", {}, ...answers.map((answer) => h("td", {}, ...compared(answer)))))));
}

function compared(prediction) {
  const { heading, words } = verdict(prediction);
  const input = h("img", { src: prediction.image, alt: `The input of ${prediction.model}` });
  return [h("strong", {}, heading), h("br"), words, input];
}
