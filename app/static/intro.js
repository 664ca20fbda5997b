/** How good the models are, from their cards. */

import { modelDetails } from "./api.js";
import { integer, percent } from "./dom.js";
import { figuresOf, photoFigures } from "./figures.js";

/** Returns a sentence on the accuracy of the models that answer, given the list of the served ones. */
export async function accuracySentence(served) {
  const answering = ["default", "default_for_photos"].map((use) => served.find((each) => each[use]).name);
  const [usual, photos] = await Promise.all(answering.map(modelDetails));
  const parts = [
    part(figuresOf(usual).test, "test images of Fashion-MNIST"), part(photoFigures(photos), "phone photos"),
  ].filter(Boolean);
  return parts.length ? `Accuracy: ${parts.join(", ")}.` : "";
}

const part = (figures, images) => figures && `${percent(figures.accuracy)} of ${integer(figures.count)} ${images}`;
