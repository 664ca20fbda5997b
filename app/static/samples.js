/** A drawing for each of the ten classes. */

import { call } from "./api.js";
import { h } from "./dom.js";

const FILES = {
  "T-shirt/top": "t-shirt.png", Trouser: "trouser.png", Pullover: "pullover.png", Dress: "dress.png", Coat: "coat.png",
  Sandal: "sandal.png", Shirt: "shirt.png", Sneaker: "sneaker.png", Bag: "bag.png", "Ankle boot": "ankle-boot.png",
};

/** Returns a list item for every sample; `use` gets a function that returns the files of the one that is clicked. */
export const samples = (use) => Object.entries(FILES).map(([name, file]) => h("li", {}, sample(name, file, use)));

function sample(name, file, use) {
  const image = h("img", { src: `page/examples/${file}`, alt: "", width: 56, height: 56 });
  return h("button", { type: "button", title: name, onclick: () => use(() => load(image.src, file)) }, image, name);
}

async function load(address, name) {
  const blob = await (await call(address)).blob();
  return [new File([blob], name, { type: "image/png" })];
}
