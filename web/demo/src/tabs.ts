// What to do: a tab for each kind of task, with the keys that tabs have.

import { element, make } from "./page.js";
import { label, type View } from "./tasks.js";

export class Tabs {
  private readonly place = element("tabs");

  constructor(private readonly choose: (view: View) => void) {
    this.place.addEventListener("keydown", (event) => {
      const all = [...this.place.querySelectorAll<HTMLElement>("[role=tab]")];
      const at = all.indexOf(document.activeElement as HTMLElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined || at < 0) return;
      event.preventDefault();
      const tab = all[(to + all.length) % all.length];
      tab?.focus();
      tab?.click();
    });
  }

  /** The tabs of the views that there are. */
  offer(views: View[], chosen: View): void {
    const focused = this.place.contains(document.activeElement);
    this.place.replaceChildren(
      ...views.map((view) => {
        const tab = make("button", { type: "button", role: "tab", id: `tab-${view}`, "aria-controls": "desk" });
        tab.textContent = label(view);
        tab.addEventListener("click", () => this.choose(view));
        return tab;
      }),
    );
    this.place.hidden = views.length < 2;
    this.show(chosen);
    if (focused) element(`tab-${chosen}`).focus();
  }

  show(chosen: View): void {
    for (const tab of this.place.querySelectorAll<HTMLElement>("[role=tab]")) {
      const is = tab.id === `tab-${chosen}`;
      tab.setAttribute("aria-selected", String(is));
      tab.tabIndex = is ? 0 : -1;
    }
    element("desk").setAttribute("aria-labelledby", `tab-${chosen}`);
  }
}
