/** How good the models are, from their cards. */

import { modelDetails } from "./api.js";
import { percent } from "./dom.js";
import { figuresOf, photoFigures } from "./figures.js";

/** Returns a sentence on the accuracy of the models that answer, given the list of the served ones. */
export async function accuracySentence(served) {
  const [usual, photos] = await Promise.all([served.find((each) => each.default), served.find((each) => each.default_for_photos)]
    .map(({ name }) => modelDetails(name)));
  const parts = [part(figuresOf(usual).test, "test images of Fashion-MNIST"), part(photoFigures(photos), "phone photos")].filter(Boolean);
  return parts.length ? `It is right on ${parts.join(" and on ")}.` : "";
}

const part = (figures, images) => figures && `${percent(figures.accuracy)} of ${figures.count.toLocaleString("en")} ${images}`;
