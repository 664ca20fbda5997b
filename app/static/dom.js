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

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** The ten probabilities as bars, the likeliest marked. */
export function bars(probabilities) {
  const best = Math.max(...Object.values(probabilities));
  const rows = Object.entries(probabilities).flatMap(([label, share]) => {
    const mark = share === best ? "best" : "";
    return [h("dt", { className: mark }, label), h("dd", {}, bar(share)), h("dd", { className: mark }, percent(share))];
  });
  return h("dl", { className: "bars" }, ...rows);
}

/** A share of a whole as a bar. */
export function bar(share) {
  return s("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "track", width: 100, height: 10 }),
    s("rect", { class: "fill", width: Math.max(100 * share, 0.5), height: 10 }));
}
