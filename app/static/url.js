/** What the page shows, in its address: tab, model, filters, page, image. */

const fields = () => Object.fromEntries(new URLSearchParams(location.search));

/** Returns a value in the address, or "". */
export const read = (name) => fields()[name] ?? "";

/** Change values in the address, as a new entry of the history; empty ones are left out. */
export function write(changes) {
  const all = Object.entries({ ...fields(), ...changes }).filter(([, value]) => value !== "");
  const query = String(new URLSearchParams(all));
  if (query !== location.search.slice(1)) history.pushState(null, "", query ? `?${query}` : location.pathname);
}
