// The page: a task and a text go in, pieces come out as they are generated.

import { registerServiceWorker, type Generation, type Output } from "pocket-t5";
import { showCredits } from "./credits.js";
import { draw } from "./heat.js";
import { modelPicker, type Loaded } from "./models.js";
import { element, megabytes, report } from "./page.js";
import { TASKS, type Task } from "./tasks.js";

const source = element<HTMLTextAreaElement>("source");
const run = element<HTMLButtonElement>("run");
const stop = element<HTMLButtonElement>("stop");
const output = element("output");

let model: Loaded | undefined;
let running: AbortController | undefined;
let task: Task = TASKS[0]!;

function showTasks(): void {
  TASKS.forEach((one, i) => {
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "task";
    input.id = `task-${i}`;
    input.checked = i === 0;
    input.addEventListener("change", () => choose(one));
    const label = document.createElement("label");
    label.htmlFor = input.id;
    label.textContent = one.name;
    element("tasks").append(input, label);
  });
  choose(task);
}

function choose(one: Task): void {
  task = one;
  source.value = one.examples[0] ?? "";
  source.lang = one.language;
  const buttons = one.examples.map((text) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => {
      source.value = text;
      void generate();
    });
    return button;
  });
  element("examples").replaceChildren(...buttons);
}

function whole(id: string): number {
  const input = element<HTMLInputElement>(id);
  const value = Math.round(Number(input.value));
  const chosen = Math.min(Number(input.max), Math.max(Number(input.min), Number.isFinite(value) ? value : 1));
  input.value = String(chosen);
  return chosen;
}

async function generate(): Promise<void> {
  if (!model) return;
  const { t5 } = model;
  running?.abort();
  const abort = (running = new AbortController());
  const text = task.prefix + source.value;
  const beams = whole("beams");
  const begin = performance.now();
  let first: number | undefined;
  report();
  output.textContent = "";
  output.setAttribute("aria-busy", "true");
  element("speed").textContent = "";
  element("n-best").hidden = element("attention").hidden = true;
  stop.disabled = false;
  try {
    const generation: Generation = t5.generate(text, {
      maxNewTokens: whole("limit"),
      beams,
      nBest: beams,
      // Only a list shows scores, and beams have them anyway.
      logprobs: false,
      signal: abort.signal,
    });
    for await (const piece of generation) {
      if (abort !== running) return;
      first ??= performance.now() - begin;
      output.append(piece);
    }
    const outputs = await generation.outputs;
    if (abort !== running) return;
    const total = performance.now() - begin;
    output.textContent = outputs[0]?.text ?? "";
    speed(outputs, first, total);
    candidates(outputs);
    await attention(text, outputs[0]?.text ?? "", abort.signal);
    element("memory").textContent = `${megabytes((await t5.info()).memoryBytes)} of memory`;
  } catch (error) {
    if (abort === running) report(error);
  } finally {
    if (abort === running) {
      running = undefined;
      stop.disabled = true;
      output.setAttribute("aria-busy", "false");
    }
  }
}

function speed(outputs: Output[], first: number | undefined, total: number): void {
  const tokens = outputs[0]?.ids.length ?? 0;
  const parts = [`${tokens} tokens in ${Math.round(total)} ms`];
  // Beams come whole, and a text of a few tokens is over with its first piece: neither has a rate of its own.
  if (first !== undefined && total - first > 0.2 * total) {
    parts.push(
      `first after ${Math.round(first)} ms`,
      `then ${Math.round(((tokens - 1) * 1000) / (total - first))} tokens/s`,
    );
  } else if (tokens > 0) {
    parts.push(`${Math.round((tokens * 1000) / total)} tokens/s`);
  }
  if (outputs[0]?.finish === "length") parts.push("cut off at the limit");
  element("speed").textContent = `${parts.join(", ")}.`;
}

/** The n-best list with scores, where there is more than one. */
function candidates(outputs: Output[]): void {
  element("n-best").hidden = outputs.length < 2;
  const items = outputs.map(({ text, score }) => {
    const item = document.createElement("li");
    const number = document.createElement("span");
    number.className = "quiet";
    number.textContent = `score ${score?.toFixed(3)}`;
    item.append(text || "(nothing)", number);
    return item;
  });
  element("candidates").replaceChildren(...items);
}

async function attention(text: string, target: string, signal: AbortSignal): Promise<void> {
  if (!model || target === "") return;
  const aligned = await model.t5.alignment(text, target, { signal });
  // A table of hundreds of words helps nobody.
  if (signal.aborted || aligned.source.length * aligned.target.length > 2500) return;
  draw(element<HTMLTableElement>("heat"), element("attention-hint"), aligned);
  element("attention").hidden = false;
}

function showState(build: string, memoryBytes: number): void {
  element("build").textContent = build;
  element("memory").textContent = `${megabytes(memoryBytes)} of memory`;
}

function showNetwork(): void {
  const badge = element("network");
  badge.textContent = navigator.onLine ? "online" : "offline";
  badge.classList.toggle("offline", !navigator.onLine);
}

element("task").addEventListener("submit", (event) => {
  event.preventDefault();
  void generate();
});
stop.addEventListener("click", () => running?.abort());
source.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void generate();
});
addEventListener("online", showNetwork);
addEventListener("offline", showNetwork);

showNetwork();
showTasks();
void modelPicker((loaded) => {
  running?.abort();
  model = loaded;
  run.disabled = !loaded;
  element("build").hidden = element("memory").hidden = !loaded;
  if (!loaded) return;
  const { isa, buildReason, threads } = loaded.info;
  showState(`${isa}, ${threads} thread${threads === 1 ? "" : "s"}`, loaded.info.memoryBytes);
  element("build").title = buildReason;
  showCredits(element("credits"), loaded.info.about);
})
  .start()
  // What the page keeps for the time without a network is fetched when the model is there.
  .then(() => {
    const keep = model ? [model.info.moduleUrl] : [];
    return registerServiceWorker("./service-worker.js", { isolate: true, files: "./files.json", keep });
  });
