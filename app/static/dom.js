/** Elements made in one call, so that nothing is ever put into the page as markup. */

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element with properties and children; strings become text. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** An SVG element with attributes and children. */
export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;

/** A whole number with its thousands set apart. */
export const integer = (number) => number.toLocaleString("en");

const TOP = 3;

/** The probabilities as bars, the likeliest first; those after the third on demand. */
export function bars(probabilities) {
  const shares = Object.entries(probabilities).sort(([, one], [, other]) => other - one);
  return h("div", {}, list(shares.slice(0, TOP), "bars best"),
    h("details", {}, h("summary", {}, "The other classes"), list(shares.slice(TOP), "bars")));
}

const list = (shares, className) => h("dl", { className },
  ...shares.flatMap(([label, share]) => [h("dt", {}, label), h("dd", {}, bar(share)), h("dd", {}, percent(share))]));

/** A share of a whole as a bar. */
export function bar(share) {
  return s("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "track", width: 100, height: 10 }),
    s("rect", { class: "fill", width: 100 * share, height: 10 }));
}
