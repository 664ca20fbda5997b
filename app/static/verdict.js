/** How far a prediction can be believed, in a word and, only where it holds, a number. */

import { percent } from "./dom.js";

const SURE = 0.9;
export const NONE = "Not one of the ten";

/** Returns the heading, the word with its number, and the kind: `sure`, `unsure` or `none`. */
export function verdict({ label, confidence, in_distribution: known, warnings }) {
  if (!known) return { kind: "none", heading: NONE, words: "" };
  if (warnings.length) return { kind: "unsure", heading: label, words: "Unsure" };
  const [kind, word] = confidence >= SURE ? ["sure", "Sure"] : ["unsure", "Unsure"];
  return { kind, heading: label, words: `${word}, ${percent(confidence)}` };
}

/** The verdict as one line of text. */
export const sentence = ({ heading, words }) => (words ? `${heading}. ${words}.` : `${heading}.`);
