/** A drawing for each of the ten classes. */

import { h } from "./dom.js";

const FILES = {
  "T-shirt/top": "t-shirt.svg", Trouser: "trouser.png", Pullover: "pullover.svg", Dress: "dress.png", Coat: "coat.svg",
  Sandal: "sandal.png", Shirt: "shirt.png", Sneaker: "sneaker.png", Bag: "bag.png", "Ankle boot": "ankle-boot.png",
};
const SIZE = 400;

/** Returns a list item for every sample; `use` gets the file of the one that is clicked. */
export const samples = (use) => Object.entries(FILES).map(([name, file]) => h("li", {}, sample(name, file, use)));

function sample(name, file, use) {
  const image = h("img", { src: `page/examples/${file}`, alt: "", width: 56, height: 56 });
  return h("button", { type: "button", title: name, onclick: async () => use(await toPng(image, file)) }, image, name);
}

/** The image as a PNG file: the service reads no SVG. */
async function toPng(image, file) {
  const canvas = h("canvas", { width: SIZE, height: SIZE });
  canvas.getContext("2d").drawImage(image, 0, 0, SIZE, SIZE);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  return new File([blob], file.replace(".svg", ".png"), { type: "image/png" });
}
