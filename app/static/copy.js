/** A button after every command that copies it. */

import { h } from "./dom.js";

const MILLISECONDS = 2000;

export function start() {
  for (const code of document.querySelectorAll(".curl code")) code.after(" ", button(code));
}

function button(code) {
  const use = code.previousElementSibling.textContent.replace(":", "");
  const label = ["Copy", h("span", { className: "visually-hidden" }, ` the command: ${use}`)];
  const element = h("button", { type: "button", className: "copy" }, ...label);
  element.addEventListener("click", async () => {
    element.replaceChildren(await copy(code));
    setTimeout(() => element.replaceChildren(...label), MILLISECONDS);
  });
  return element;
}

/** Copy, or, where the browser does not allow it (no HTTPS), select the text. Returns what was done. */
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    return "Selected: press Ctrl+C";
  }
}
