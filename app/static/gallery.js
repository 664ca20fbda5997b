/** The tab of test images: filters and pages of tiles; without the data, the card's figures. */

import { absolute, address, getJson, lacksData, modelDetails } from "./api.js";
import { byId, h, integer } from "./dom.js";
import { figuresOf, noData, source, summary } from "./figures.js";
import * as image from "./image.js";
import { keyOption } from "./key.js";
import { read, write } from "./url.js";

const ROWS = 4, COLUMNS = 10, SIZE = ROWS * COLUMNS;
const FILTERS = ["only", "label", "predicted"];
let items = [];
let count = 0;
let shown = 0;
let stepping = false;

export function start(classes) {
  for (const select of document.querySelectorAll("[data-classes]")) {
    select.append(...classes.map((name) => h("option", { value: name }, name)));
  }
  byId("gallery-form").addEventListener("change", () => {
    go({ ...Object.fromEntries(new FormData(byId("gallery-form"))), page: "" });
  });
  byId("gallery-form").addEventListener("submit", (event) => event.preventDefault());
  byId("gallery-more").addEventListener("click", () => go({ seed: Number(read("seed")) + 1, page: "" }));
  byId("gallery-previous").addEventListener("click", () => turn(-1));
  byId("gallery-next").addEventListener("click", () => turn(1));
  image.start(step, () => { write({ image: "" }); image.close(); });
}

export const leave = image.close;

function go(changes) {
  write(changes);
  refresh();
}

const page = () => Number(read("page")) || 0;
const isPage = (number) => number >= 0 && number * SIZE < count;

/** The address of a page as the text that the URL has: the first has none. */
const numbered = (number) => String(number || "");

function turn(by) {
  if (isPage(page() + by)) go({ page: numbered(page() + by) });
}

const query = (number = page()) => ({ ...Object.fromEntries([...FILTERS, "seed"].map((name) => [name, read(name)])),
  page: numbered(number), rows: ROWS, columns: COLUMNS });

export async function refresh() {
  const mine = (shown += 1);
  for (const name of FILTERS) byId("gallery-form").elements[name].value = read(name);
  byId("gallery-curl").textContent = `curl -f '${absolute("gallery", query())}' -o gallery.png${keyOption()}`;
  byId("gallery-problem").textContent = "";
  byId("gallery-status").textContent = "Looking for images …";
  try {
    const found = await getJson(address("gallery/items", query()));
    if (mine === shown) showImages(found);
  } catch (error) {
    const details = lacksData(error) && await modelDetails().catch(() => null);
    if (mine === shown) showInstead(details, error.message);
  }
}

function showImages(found) {
  ({ items, count } = found);
  byId("gallery-form").hidden = byId("gallery-command").hidden = false;
  byId("gallery-card").replaceChildren();
  showTiles();
  showLarge();
}

/** Show what the card knows of the test images where there are none, or what went wrong. */
function showInstead(details, reason) {
  items = [];
  byId("gallery-form").hidden = byId("gallery-command").hidden = Boolean(details);
  showTiles();
  byId("gallery-status").textContent = details ? source(details) : "";
  byId("gallery-problem").textContent = details ? "" : reason;
  byId("gallery-card").replaceChildren(...(details ? [noData(reason), ...summary(figuresOf(details).test)] : []));
}

function showTiles() {
  const first = page() * SIZE;
  const [from, to, all] = [first + 1, first + items.length, count].map(integer);
  byId("gallery-status").textContent = items.length ? `${from} to ${to} of ${all} images.` : "There is no such image.";
  byId("gallery-items").replaceChildren(...items.map((item) => h("li", {}, tile(item))));
  byId("gallery-pages").hidden = !items.length || count <= SIZE;
  byId("gallery-previous").ariaDisabled = String(!isPage(page() - 1));
  byId("gallery-next").ariaDisabled = String(!isPage(page() + 1));
}

function tile(item) {
  return h("button", { type: "button", id: `image-${item.index}`, onclick: () => enlarge(item) },
    image.thumbnail(item),
    h("span", { className: item.correct ? "" : "wrong" }, `${item.correct ? "✓" : "✗"} ${item.predicted}`),
    h("span", {}, `true ${item.label}`));
}

function enlarge(item) {
  write({ image: String(item.index) });
  showLarge();
}

const place = () => items.findIndex(({ index }) => String(index) === read("image"));

function showLarge() {
  if (!items[place()]) return image.close();
  const first = page() === 0 && place() === 0;
  image.show(items[place()], { first, last: page() * SIZE + place() === count - 1 });
}

/** Go to the image before or after, where need be on another page. */
async function step(by) {
  if (stepping) return;
  const next = items[place() + by];
  const target = page() + by;
  if (next) enlarge(next);
  else if (isPage(target)) {
    stepping = true;
    const found = await getJson(address("gallery/items", query(target))).finally(() => { stepping = false; });
    const item = found.items.at(by > 0 ? 0 : -1);
    write({ page: numbered(target), image: String(item.index) });
    showImages(found);
  }
}
