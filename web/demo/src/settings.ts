// The settings: how much care, which model, what runs, who made it.

import { cache, type Progress } from "pocket-t5";
import { showCredits } from "./credits.js";
import { dropped } from "./drop.js";
import { explain, wanted } from "./errors.js";
import type { Coming, Loaded, Models } from "./model.js";
import { element, entries, make, button, megabytes } from "./page.js";
import { keep, whole, type Preferences } from "./preferences.js";

/** How far loading is, in words. */
export function inWords(progress: Progress | undefined): string {
  if (!progress) return "Asking for it…";
  const { phase, loaded, total, bytesPerSecond } = progress;
  if (phase === "prepare") return "Almost ready…";
  if (total === 0) return `${megabytes(loaded)} so far`;
  const part = `${megabytes(loaded)} of ${megabytes(total)}`;
  if (phase === "read") return `${part}, kept on this device`;
  if (phase === "quantize") return `${part}, made small`;
  return bytesPerSecond === null ? part : `${part}, ${megabytes(bytesPerSecond)} a second`;
}

/** The part that is there, 0 to 1; undefined while unknown. */
export const share = (progress: Progress | undefined): number | undefined =>
  progress && progress.total > 0 ? progress.loaded / progress.total : undefined;

/** Sets a bar; without a value it says that something is going on. */
export function setBar(bar: HTMLProgressElement, value: number | undefined): void {
  if (value === undefined) bar.removeAttribute("value");
  else bar.value = value;
}

export class Settings {
  private readonly dialog = element<HTMLDialogElement>("settings");
  private model: Loaded | undefined;
  private last = "";

  /** `changed` hears of every choice. */
  constructor(
    private readonly models: Models,
    private readonly chosen: Preferences,
    changed: () => void,
  ) {
    element("open-settings").addEventListener("click", () => this.open());
    element("busy").addEventListener("click", () => this.open());
    element("open-about").addEventListener("click", () => {
      this.open();
      element("about").scrollIntoView();
      element("about").focus();
    });
    element("close-settings").addEventListener("click", () => this.dialog.close());
    // Beside the panel is outside of it.
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.choices(changed);
    this.sources();
    this.installs();
  }

  open(): void {
    if (!this.dialog.open) this.dialog.showModal();
    this.device();
    void this.stored();
  }

  /** What is on its way; undefined: nothing. */
  coming(coming: Coming | undefined): void {
    element("loading").hidden = !coming;
    const chip = element("busy");
    // The first model has a place of its own on the page.
    chip.hidden = !coming || !this.model;
    if (!coming) return;
    element("model-error").hidden = true;
    const part = share(coming.progress);
    setBar(element<HTMLProgressElement>("loading-bar"), part);
    element("loading-text").textContent = `${coming.name}: ${inWords(coming.progress)}`;
    chip.textContent = `Loading${part === undefined ? "…" : ` ${Math.round(100 * part)} %`}`;
  }

  loaded(model: Loaded): void {
    this.model = model;
    const { info, name, builtIn } = model;
    element("model-name").textContent =
      `${name}: ${megabytes(info.fileBytes)}, ready after ${(info.loadMs / 1000).toFixed(1)} s.`;
    element("default").hidden = builtIn;
    element("save").hidden = !this.models.made;
    element("model-error").hidden = true;
    element<HTMLInputElement>("url").value = "";
    showCredits(element("credits"), info.about);
    this.device();
    void this.stored();
  }

  failed(error: unknown, typed?: string): void {
    void this.stored();
    if (wanted(error)) return;
    const stays = this.model ? ` ${this.model.name} goes on working.` : "";
    element("model-error").textContent = `${explain(error, typed)}${stays}`;
    element("model-error").hidden = false;
    // Dropped files say so where they were dropped.
    if (this.model) this.open();
  }

  /** How long the last answer took. */
  answered(words: number, ms: number): void {
    this.last = `${words} word${words === 1 ? "" : "s"} in ${Math.round(ms)} ms`;
    if (this.dialog.open) this.device();
  }

  /** What runs. */
  async device(): Promise<void> {
    const list: [string, (Node | string)[]][] = [["Network", [navigator.onLine ? "online" : "offline"]]];
    if (this.model) {
      const { t5, info } = this.model;
      const { isa, threads, buildReason } = info;
      const why = make("small", { class: "quiet" }, buildReason);
      list.push(["Engine", [`${isa}, ${threads} thread${threads === 1 ? "" : "s"}`, make("br"), why]]);
      if (!info.kept) list.push(["Not kept", [info.keptReason]]);
      const now = await t5.info().catch(() => info);
      list.push(["Memory", [megabytes(now.memoryBytes)]]);
    }
    if (this.last) list.push(["Last answer", [this.last]]);
    entries(element("device"), list);
  }

  private choices(changed: () => void): void {
    const limit = element<HTMLInputElement>("limit");
    limit.value = String(this.chosen.limit);
    limit.addEventListener("change", () => {
      this.chosen.limit = whole(limit.value, 8, 512, this.chosen.limit);
      limit.value = String(this.chosen.limit);
      keep(this.chosen);
      changed();
    });
    for (const radio of element("care").querySelectorAll("input")) {
      radio.checked = Number(radio.value) === this.chosen.beams;
      radio.addEventListener("change", () => {
        this.chosen.beams = Number(radio.value);
        keep(this.chosen);
        changed();
      });
    }
  }

  private sources(): void {
    element("default").addEventListener("click", () => void this.models.builtIn());
    element("loading-cancel").addEventListener("click", () => this.models.cancel());
    element("address").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.models.address(element<HTMLInputElement>("url").value.trim());
    });
    element<HTMLInputElement>("files").addEventListener("change", (event) => {
      const input = event.target as HTMLInputElement;
      void this.models.files([...(input.files ?? [])]);
      input.value = "";
    });
    element("save").addEventListener("click", () => {
      const { made } = this.models;
      if (!made) return;
      const link = make("a", { href: URL.createObjectURL(made), download: made.name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
    dropped((files) => {
      this.open();
      void this.models.files(files);
    });
  }

  private async stored(): Promise<void> {
    const stored = await cache.list();
    const items = stored.map(({ name, bytes, complete, source }) => {
      const remove = async (): Promise<void> => {
        await cache.delete(source);
        await this.stored();
        element("stored-title").focus();
      };
      const label = `${name}, ${megabytes(bytes)}${complete ? "" : ", not whole yet"}`;
      return make("li", {}, make("span", {}, label), button("Delete", remove, { "aria-label": `Delete ${name}` }));
    });
    element("stored").replaceChildren(...(items.length > 0 ? items : [make("li", {}, "Nothing yet.")]));
  }

  /** Browsers that can make the page an app say so. */
  private installs(): void {
    const install = element("install");
    addEventListener("beforeinstallprompt", (event) => {
      event.preventDefault();
      install.hidden = false;
      install.onclick = () => {
        install.hidden = true;
        void (event as Event & { prompt(): Promise<void> }).prompt();
      };
    });
  }
}
