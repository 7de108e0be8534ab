// The page's elements, and what else all of it uses.

/** An element that index.html has. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`expected an element with id ${id}, found none`);
  return found as T;
}

/** A new element with attributes and content. */
export function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Record<string, string> = {},
  ...content: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

/** A button with words on it. */
export function button(label: string, press: () => void, attributes: Record<string, string> = {}): HTMLButtonElement {
  const made = make("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", press);
  return made;
}

/** Shows one of index.html's pictures on a button that has no words. */
export function picture(on: HTMLElement, name: string, label?: string): void {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  on.replaceChildren(svg);
  if (label === undefined) return;
  on.setAttribute("aria-label", label);
  on.title = label;
}

/** Terms and texts of a list. */
export function entries(list: HTMLElement, all: [term: string, content: (Node | string)[]][]): void {
  list.replaceChildren(...all.flatMap(([term, content]) => [make("dt", {}, term), make("dd", {}, ...content)]));
}

/** Tells screen readers, in the text's language. */
export function say(text: string, lang = "en"): void {
  const place = element("said");
  place.lang = lang;
  place.textContent = text;
}

export function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;
}
