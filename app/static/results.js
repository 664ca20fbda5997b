/** The list of pictures with their results: summed up by class, filtered, sorted, cancelled, cleared. */

import { address, upload } from "./api.js";
import { download } from "./csv.js";
import { byId, h } from "./dom.js";
import { byGroup, group, ORDERS } from "./order.js";
import { createRow, showError, showPrediction } from "./result.js";
import { sentence, verdict } from "./verdict.js";

const AT_ONCE = 4;
let entries = [];
let cleared = [];
let filter = "";
const named = new Map();
let controller = new AbortController();

export function start() {
  byId("csv").addEventListener("click", save);
  byId("clear").addEventListener("click", clear);
  byId("undo").addEventListener("click", undo);
  byId("cancel").addEventListener("click", cancel);
  byId("order").addEventListener("change", sort);
}

/** Save the results there are as CSV. */
function save() {
  const done = entries.filter((each) => each.result);
  download(done.map(({ file, result }) => ({ file: file.name, ...result })));
}

/** Classify files; their rows stand above the older ones, in the order of the files. */
export async function classify(files) {
  if (!files.length) return;
  if (!entries.length) named.clear();
  const fresh = files.map((file) => createEntry(file));
  entries = [...fresh, ...entries];
  byId("answers").prepend(...fresh.map(({ row }) => row));
  cleared = [];
  filter = "";
  update();
  const waiting = [...fresh];
  const next = async () => {
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) await answer(entry, fresh.length === 1);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  if (byId("order").value) sort();
  if (fresh.length === 1 && entries.includes(fresh[0])) focusRow(fresh[0].row);
  else if (fresh.length > 1 && entries.length) byId("predict-status").focus();
}

function createEntry(file) {
  const entry = { file, name: nameOf(file), signal: controller.signal };
  entry.row = createRow(entry, () => remove(entry));
  return entry;
}

/** The name of a file, with a number if others in the list have it too. */
function nameOf({ name }) {
  const number = (named.get(name) ?? 0) + 1;
  named.set(name, number);
  return number === 1 ? name : `${name} (${number})`;
}

async function answer(entry, alone) {
  const { file, signal } = entry;
  if (signal.aborted || !entries.includes(entry)) return;
  try {
    entry.result = await (await upload(address("predict", { image: "true" }), file, signal)).json();
    showPrediction(entry, alone);
  } catch (error) {
    if (signal.aborted) return;
    entry.result = { error: error.message };
    showError(entry);
  }
  update();
}

const focusRow = (row) => row.querySelector("summary").focus();

const visibleRows = () => [...byId("answers").children].filter((row) => !row.hidden);

/** Put the rows into the chosen order. */
function sort() {
  byId("answers").append(...entries.toSorted(ORDERS[byId("order").value]).map(({ row }) => row));
}

function remove(entry) {
  const place = visibleRows().indexOf(entry.row);
  entries = entries.filter((each) => each !== entry);
  entry.row.remove();
  update();
  focusNear(place);
}

/** Move the focus to the row at or before a place that can be seen, or to where pictures are chosen. */
function focusNear(place) {
  const rows = visibleRows();
  if (rows.length) focusRow(rows[Math.min(place, rows.length - 1)]);
  else byId("files").focus();
}

/** Stop those that wait; what is answered stays. */
function cancel() {
  controller.abort();
  controller = new AbortController();
  for (const { row } of entries.filter((each) => !each.result)) row.remove();
  entries = entries.filter((each) => each.result);
  update();
  byId(entries.length ? "predict-status" : "files").focus();
}

function clear() {
  cancel();
  cleared = entries;
  entries = [];
  byId("answers").replaceChildren();
  update();
  if (cleared.length) byId("undo").focus();
}

function undo() {
  entries = cleared;
  cleared = [];
  sort();
  update();
  focusRow(visibleRows()[0]);
}

/** Bring all but the rows up to date. The status of a single picture is only spoken: its row says the same. */
function update() {
  const done = entries.filter((each) => each.result);
  const busy = done.length < entries.length;
  byId("predict").classList.toggle("answered", entries.length > 0);
  byId("answers-buttons").hidden = !entries.length;
  byId("undo").hidden = !cleared.length;
  byId("cancel").hidden = byId("predict-progress").hidden = !busy;
  Object.assign(byId("predict-progress"), { max: entries.length || 1, value: done.length });
  byId("predict-status").textContent = status(done);
  byId("predict-status").classList.toggle("alone", entries.length === 1 && !busy);
  summarise(done);
}

/** What is announced: a single result in words, otherwise how many there are. */
function status(done) {
  if (!entries.length) return cleared.length ? "Cleared." : "";
  if (entries.length === 1 && done.length) return announcement(entries[0]);
  const failed = done.filter(({ result }) => result.error).length;
  return `${done.length - failed} of ${entries.length} classified${failed ? `, ${failed} failed` : ""}.`;
}

const announcement = ({ name, result }) => `${name}: ${result.error ?? sentence(verdict(result))}`;

/** A button for every group: how many are in it; it shows only these. */
function summarise(done) {
  const counts = new Map();
  for (const entry of done) counts.set(group(entry), (counts.get(group(entry)) ?? 0) + 1);
  if (!counts.has(filter)) filter = "";
  const groups = [["", done.length], ...[...counts].sort(([one], [other]) => byGroup(one, other))];
  byId("groups").hidden = byId("sorting").hidden = entries.length < 2;
  const focused = byId("groups").contains(document.activeElement);
  byId("groups").replaceChildren(...groups.map(([name, count]) => choice(name, count)));
  if (focused) byId("groups").querySelector("[aria-pressed=true]").focus();
  for (const entry of entries) entry.row.hidden = filter !== "" && group(entry) !== filter;
}

function choice(name, count) {
  const show = () => { filter = name; update(); };
  const ariaPressed = String(name === filter);
  return h("button", { type: "button", ariaPressed, onclick: show }, `${name || "All"} ${count}`);
}
