/** A canvas of 28x28 pixels to draw on, light on dark as in the data set. */

import { byId } from "./dom.js";

const canvas = byId("sketch");
const context = canvas.getContext("2d");
let end = null;

/** `use` gets a file of the drawing. */
export function start(use) {
  erase();
  Object.assign(context, { strokeStyle: "#ffffff", lineWidth: 3, lineCap: "round", lineJoin: "round" });
  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", (event) => { if (end && event.buttons) extend(place(event)); });
  canvas.addEventListener("pointerup", () => { end = null; });
  byId("sketch-start").addEventListener("click", toggle);
  byId("sketch-erase").addEventListener("click", erase);
  byId("sketch-classify").addEventListener("click", () => {
    canvas.toBlob((blob) => use(new File([blob], "drawing.png", { type: "image/png" })));
  });
}

function toggle({ currentTarget }) {
  byId("sketching").hidden = !byId("sketching").hidden;
  currentTarget.ariaExpanded = String(!byId("sketching").hidden);
}

const erase = () => context.fillRect(0, 0, canvas.width, canvas.height);

function begin(event) {
  canvas.setPointerCapture(event.pointerId);
  end = place(event);
  extend(end);
}

/** Where on the canvas the pointer is, in its pixels. */
const place = ({ offsetX, offsetY }) => [offsetX, offsetY].map((each) => each * canvas.width / canvas.clientWidth);

function extend(to) {
  context.beginPath();
  context.moveTo(...end);
  context.lineTo(...to);
  context.stroke();
  end = to;
}
