// From which language to which, as far as the model has them.

import { element, make } from "./page.js";
import { language, type Task } from "./tasks.js";

export class Languages {
  private readonly from = element<HTMLSelectElement>("from");
  private readonly to = element<HTMLSelectElement>("to");
  private tasks: Task[] = [];

  /** `choose` hears of another pair; `swap` of the other direction of this one. */
  constructor(
    private readonly choose: (task: Task) => void,
    swap: (task: Task) => void,
  ) {
    this.from.addEventListener("change", () => this.chosen());
    this.to.addEventListener("change", () => this.chosen());
    element("swap").addEventListener("click", () => {
      const back = this.pair(this.to.value, this.from.value);
      if (back) swap(back);
    });
  }

  /** Offers the pairs of these tasks, one of them chosen. */
  show(tasks: Task[], { from, to }: Task): void {
    this.tasks = tasks;
    options(this.from, tasks.map(({ from }) => from), from);
    options(this.to, tasks.filter((task) => task.from === from).map(({ to }) => to), to);
    const back = this.pair(to, from) !== undefined;
    element("swap").hidden = !back;
    element("arrow").hidden = back;
  }

  private pair(from: string | undefined, to: string | undefined): Task | undefined {
    return this.tasks.find((task) => task.from === from && task.to === to);
  }

  /** The pair of both choices, else one from the chosen language: back into the other one if there is that. */
  private chosen(): void {
    const [from, to] = [this.from.value, this.to.value];
    const before = this.tasks.filter((task) => task.from === from);
    const task = this.pair(from, to) ?? before.find(({ to }) => to === "en") ?? before[0];
    if (task) this.choose(task);
  }
}

function options(select: HTMLSelectElement, codes: (string | undefined)[], chosen: string | undefined): void {
  const all = [...new Set(codes.map((code) => code ?? ""))];
  select.replaceChildren(...all.map((code) => make("option", { value: code }, language(code))));
  select.value = chosen ?? "";
  // One language is no choice.
  select.disabled = all.length < 2;
}
