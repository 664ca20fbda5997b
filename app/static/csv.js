/** Results as a CSV file. */

import { h } from "./dom.js";

const FIELDS = [
  "file", "label", "class_id", "confidence", "in_distribution", "ood_score", "model", "model_version", "model_choice",
];

/** Save the results, in the columns of `fashionnet predict --out`. */
export function download(results) {
  const labels = Object.keys(results.find((each) => each.probabilities)?.probabilities ?? {});
  const lines = results.map((each) => [
    ...FIELDS.map((name) => each[name] ?? ""), (each.warnings ?? []).join(" "),
    ...labels.map((label) => each.probabilities?.[label] ?? ""), each.error ?? "",
  ]);
  const table = [[...FIELDS, "warnings", ...labels, "error"], ...lines];
  const file = new Blob([table.map((line) => line.map(cell).join(",")).join("\r\n")], { type: "text/csv" });
  const link = h("a", { href: URL.createObjectURL(file), download: "fashionnet.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

/** A cell; one that a spreadsheet would take for a formula is made text. */
function cell(value) {
  const text = String(value);
  const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
