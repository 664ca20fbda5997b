/** The API key, for a service that wants one: asked for once, and kept until the tab is closed. */

import { h } from "./dom.js";

const NAME = "fashionnet-key";
let question;
let demanded = false;

export const storedKey = () => sessionStorage.getItem(NAME);

/** The options of fetch with the key among the headers. */
export const withKey = (options, key) => (
  key ? { ...options, headers: { ...options?.headers, "X-API-Key": key } } : options);

/** The option of curl that sends the key, from a variable of the shell; "" where the service wants none. */
export const keyOption = () => (demanded || storedKey() ? ' -H "X-API-Key: $API_KEY"' : "");

/** Ask for the key; returns whether one was given. Calls that fail together share the question. */
export function askForKey() {
  demanded = true;
  question ??= ask().finally(() => { question = undefined; });
  return question;
}

function ask() {
  const field = h("input", {
    type: "password", name: "key", required: true, autocomplete: "off",
    pattern: "\\s*[!-~]+\\s*", title: "A key has letters, digits and signs of ASCII, without spaces.",
  });
  const form = h("form", { className: "filters" }, h("label", {}, "API key ", field), h("button", {}, "Continue"));
  const reason = storedKey() ? "The service does not know this API key: enter another one."
    : "The service asks for an API key.";
  const dialog = h("dialog", { id: "key", ariaLabel: "API key" }, h("p", {}, reason), form);
  document.body.append(dialog);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(NAME, field.value.trim());
    dialog.close("given");
  });
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "given"); });
  });
}
