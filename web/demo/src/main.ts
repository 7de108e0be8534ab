// The page: what its parts hear of each other.

import { cache, registerServiceWorker } from "pocket-t5";
import { Desk } from "./desk.js";
import { Getting } from "./getting.js";
import { Models } from "./model.js";
import { element } from "./page.js";
import { preferences } from "./preferences.js";
import { Settings } from "./settings.js";
import { copies, linkTo, shared } from "./share.js";
import { speaks } from "./speak.js";

const state = (model: "none" | "coming" | "ready"): void => void (document.body.dataset.model = model);

const models = new Models({
  coming(coming) {
    settings.coming(coming);
    if (models.current || !coming) return;
    state("coming");
    getting.coming(coming);
  },
  loaded(model) {
    getting.done();
    state("ready");
    settings.loaded(model);
    desk.use(model);
  },
  failed(error, typed) {
    settings.failed(error, typed);
    if (models.current) return;
    state("none");
    getting.failed(error);
  },
});
const chosen = preferences();
const settings = new Settings(models, chosen, () => desk.again());
const desk = new Desk(
  chosen,
  (words, ms) => settings.answered(words, ms),
  () => void models.again(),
);
const getting = new Getting(
  () => void models.builtIn(),
  () => models.cancel(),
);

speaks(element<HTMLButtonElement>("speak-source"), "the text", () => desk.source);
speaks(element<HTMLButtonElement>("speak-answer"), "the answer", () => desk.target);
copies(element<HTMLButtonElement>("copy"), "copy", "Copied", () => desk.copied);
copies(element<HTMLButtonElement>("link"), "link", "Link copied", () => linkTo(desk.shared));

function followLink(): void {
  const link = shared();
  if (link) desk.open(link);
}
addEventListener("hashchange", followLink);
followLink();

function showNetwork(): void {
  element("network").hidden = navigator.onLine;
  void settings.device();
}
addEventListener("online", showNetwork);
addEventListener("offline", showNetwork);
showNetwork();

const savesData = (): boolean =>
  (navigator as { connection?: { saveData?: boolean } }).connection?.saveData ?? false;

/** Whoever saves data is asked before megabytes are transferred. */
async function start(): Promise<void> {
  if (savesData() && (await cache.list()).length === 0) {
    state("none");
    return getting.waiting();
  }
  await models.builtIn();
}

/** The module that runs, and the one that will run once the page is isolated, where that is another one. */
async function modules(): Promise<string[]> {
  if (!models.current) return [];
  const { build, moduleUrl } = models.current.info;
  const same = crossOriginIsolated || build !== "relaxed" || navigator.hardwareConcurrency < 2 || savesData();
  if (same) return [moduleUrl];
  const next = await fetch("./next.json").then((response) => response.json() as Promise<string[]>, () => []);
  return [moduleUrl, ...next];
}

// What the page keeps for the time without a network, and for the next visit, is fetched when the model is there.
void start().then(async () => {
  const keep = await modules();
  return registerServiceWorker("./service-worker.js", {
    isolate: true,
    files: "./files.json",
    immutable: "./assets/",
    keep,
  });
});
