/** Diagrams as SVG. */

import { percent, s } from "./dom.js";

const WIDTH = 360, HEIGHT = 240, LEFT = 60, BOTTOM = 30, TOP = 12, RIGHT = 12;

/** Axes with titles over 0..1 across and low..high up, and functions that place a value. */
function frame(title, across, up, low, high, ticks) {
  const x = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - BOTTOM - TOP);
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    s("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
    s("text", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, across),
    s("text", { transform: `translate(14 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)`, "text-anchor": "middle" }, up),
    ...ticks.map((value) => s("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, label(value, high))));
  return { svg, x, y };
}

const label = (value, high) => (high <= 1 ? percent(value, 0) : value.toFixed(2));

export function reliabilityDiagram(bins) {
  const full = bins.filter((bin) => bin.count);
  const words = full.map((bin) => `${percent(bin.confidence, 0)} confident, ${percent(bin.accuracy, 0)} right`).join("; ");
  const { svg, x, y } = frame(`Reliability diagram: ${words}`, "Confidence", "Accuracy", 0, 1, [0, 0.5, 1]);
  svg.append(s("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  svg.append(s("polyline", { class: "curve train", points: full.map((bin) => `${x(bin.confidence)},${y(bin.accuracy)}`).join(" ") }));
  for (const bin of full) {
    const radius = 2 + 5 * Math.sqrt(bin.count / Math.max(...full.map((each) => each.count)));
    svg.append(s("circle", { class: "fill", cx: x(bin.confidence), cy: y(bin.accuracy), r: radius }));
  }
  return svg;
}

/** Training and validation accuracy over the epochs of a run. */
export function trainingCurves(history) {
  const parts = ["train", "validation"];
  const values = history.flatMap((epoch) => parts.map((part) => epoch[`${part}_accuracy`]));
  const low = Math.floor(Math.min(...values) * 20) / 20;
  const last = history[history.length - 1];
  const title = `Accuracy over ${history.length} epochs: at the end ${parts.map((part) => `${part} ${percent(last[`${part}_accuracy`])}`).join(", ")}`;
  const { svg, x, y } = frame(title, `Epoch 1 to ${history.length}`, "Accuracy", low, 1, [low, (low + 1) / 2, 1]);
  parts.forEach((part, row) => {
    const points = history.map((epoch, i) => `${x(i / Math.max(1, history.length - 1))},${y(epoch[`${part}_accuracy`])}`);
    svg.append(s("polyline", { class: `curve ${part}`, points: points.join(" ") }));
    svg.append(s("line", { class: `curve ${part}`, x1: 240, x2: 262, y1: 170 + 16 * row, y2: 170 + 16 * row }));
    svg.append(s("text", { x: 267, y: 174 + 16 * row }, part));
  });
  return svg;
}
