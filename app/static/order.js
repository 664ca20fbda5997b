/** The groups and the orders of the list of results. */

import { NONE, verdict } from "./verdict.js";

const FAILED = "Failed";

/** Returns the group to which a result belongs: its class, or what is none of them; "" while there is none. */
export function group({ result }) {
  if (!result) return "";
  return result.error ? FAILED : verdict(result).heading;
}

const rank = (name) => ({ [NONE]: "2", [FAILED]: "3" })[name] ?? `1${name}`;

/** Compares groups: the classes by name, then what is none of them. */
export const byGroup = (one, other) => rank(one).localeCompare(rank(other));

/** How sure a result is; below 0 where no class holds. */
const sureness = ({ result }) => (result?.in_distribution ? result.confidence : -1);

/** Compares results, by the value of the choice; those that are alike keep the order of their files. */
export const ORDERS = {
  "": () => 0,
  name: (one, other) => one.file.name.localeCompare(other.file.name, "en", { numeric: true }),
  class: (one, other) => byGroup(group(one), group(other)),
  sureness: (one, other) => sureness(one) - sureness(other),
};
