/** Diagrams as SVG. */

import { percent, s } from "./dom.js";

const WIDTH = 360, HEIGHT = 250, LEFT = 60, BOTTOM = 42, TOP = 12, RIGHT = 22;

const share = (value) => percent(value).replace(".0%", "%");

/** An axis from its first tick to its last; `format` writes a tick. */
function axis(name, ticks, format = share) {
  const [low, high] = [ticks[0], ticks.at(-1)];
  return { name, ticks, format, part: (value) => (value - low) / (high - low || 1) };
}

/** A diagram with two axes, and functions that place a value. */
function frame(title, across, up) {
  const x = (value) => LEFT + across.part(value) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - up.part(value) * (HEIGHT - BOTTOM - TOP);
  const text = (attributes, content) => s("text", { "text-anchor": "middle", ...attributes }, content);
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    s("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
    text({ x: (WIDTH + LEFT) / 2, y: HEIGHT - 8 }, across.name),
    text({ transform: `translate(14 ${(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)` }, up.name),
    ...across.ticks.map((value) => text({ x: x(value), y: HEIGHT - BOTTOM + 15 }, across.format(value))),
    ...up.ticks.map((value) => text({ x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, up.format(value))));
  return { svg, x, y };
}

const line = (kind, points) => s("polyline", { class: `curve ${kind}`, points: points.join(" ") });

export function reliabilityDiagram(bins) {
  const full = bins.filter((bin) => bin.count);
  const words = full.map((bin) => `${percent(bin.confidence, 0)} confident, ${percent(bin.accuracy, 0)} right`);
  const title = `Reliability diagram: ${words.join("; ")}`;
  const { svg, x, y } = frame(title, axis("Confidence", [0, 0.5, 1]), axis("Accuracy", [0, 0.5, 1]));
  svg.append(s("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  svg.append(line("train", full.map((bin) => `${x(bin.confidence)},${y(bin.accuracy)}`)));
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
  const end = parts.map((part) => `${part} ${percent(history.at(-1)[`${part}_accuracy`])}`).join(", ");
  const { svg, x, y } = frame(`Accuracy over ${history.length} epochs: at the end ${end}`,
    axis("Epoch", [1, history.length], String), axis("Accuracy", [low, (low + 1) / 2, 1]));
  parts.forEach((part, row) => {
    svg.append(line(part, history.map((epoch, i) => `${x(i + 1)},${y(epoch[`${part}_accuracy`])}`)));
    svg.append(s("line", { class: `curve ${part}`, x1: 240, x2: 262, y1: 170 + 16 * row, y2: 170 + 16 * row }));
    svg.append(s("text", { x: 267, y: 174 + 16 * row }, part));
  });
  return svg;
}
