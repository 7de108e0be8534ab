// Who made a model, and under which terms: what its file says.

import { entries, make } from "./page.js";

/** Keys of a model file, in the order in which they are shown. */
const KEYS: [key: string, label: string][] = [
  ["general.name", "Model"],
  ["general.author", "By"],
  ["general.organization", "Organisation"],
  ["general.description", "Description"],
  ["general.license", "Licence"],
  ["general.license.name", "Licence"],
  ["general.license.link", "Text of the licence"],
  ["general.attribution", "Made from"],
  ["general.url", "Home"],
  ["general.repo_url", "Repository"],
  ["general.source.url", "Source"],
];

/** Fills a list of terms and texts. Without a licence in the file it says so: nobody knows then what is allowed. */
export function showCredits(list: HTMLElement, about: Record<string, string>): void {
  const known = KEYS.filter(([key]) => about[key]?.trim());
  const all = known.map(([key, label]): [string, (Node | string)[]] => [label, linked(about[key] ?? "")]);
  if (!about["general.license"] && !about["general.license.name"]) {
    all.push(["Licence", ["The file does not say (general.license)."]]);
  }
  entries(list, all);
}

/** A text with its addresses as links. A file may say anything: only web addresses become one. */
export function linked(text: string): (Node | string)[] {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]])/).map((part, i) => {
    if (i % 2 === 0) return part;
    const shown = part.replace(/^https?:\/\/(www\.)?/, "").replace(/\/$/, "");
    return make("a", { href: part, rel: "noopener noreferrer" }, shown);
  });
}
