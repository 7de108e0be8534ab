// The model picker: the default, an address, files; what is kept on the device.

import { cache, quantize, T5, type Info, type Progress, type Source } from "pocket-t5";
import { MODEL } from "virtual:model";
import { element, megabytes, report } from "./page.js";

export interface Loaded {
  t5: T5;
  info: Info;
}

/** How far loading is. */
function inWords({ phase, loaded, total, bytesPerSecond }: Progress, name: string): string {
  if (phase === "prepare") return `Preparing ${name}…`;
  if (total === 0) return `${megabytes(loaded)} so far`;
  const part = `${megabytes(loaded)} of ${megabytes(total)}`;
  if (phase === "read") return `${part}, kept on this device`;
  return bytesPerSecond === null ? part : `${part}, ${megabytes(bytesPerSecond)} a second`;
}

/** Lets the page's visitor choose a model; `changed` hears of each, and of there being none. */
export function modelPicker(changed: (loaded: Loaded | undefined) => void): { start(): Promise<void> } {
  let current: T5 | undefined;
  let loading: AbortController | undefined;
  let made: File | undefined;

  async function load(source: Source, name: string, sha256?: string): Promise<void> {
    loading?.abort();
    const abort = (loading = new AbortController());
    const signal = abort.signal;
    report();
    progress(`Loading ${name}…`);
    current?.dispose();
    current = undefined;
    changed(undefined);
    try {
      const onProgress = (event: Progress): void => {
        if (abort === loading) progress(inWords(event, name), event.total > 0 ? event.loaded / event.total : 0);
      };
      const t5 = await T5.load(source, { onProgress, signal, ...(sha256 && { sha256 }) });
      if (signal.aborted) return t5.dispose();
      current = t5;
      const info = await t5.info();
      element("model-name").textContent =
        `${name}: ${megabytes(info.fileBytes)}, ready in ${Math.round(info.loadMs)} ms.`;
      changed({ t5, info });
    } catch (error) {
      if (abort !== loading) return;
      element("model-name").textContent = "No model.";
      report(error);
    } finally {
      if (abort === loading) element("download").hidden = true;
      await listStored();
    }
  }

  function progress(text: string, part = 0): void {
    element("download").hidden = false;
    element<HTMLProgressElement>("progress").value = part;
    element("progress-text").textContent = text;
    if (part === 0) element("model-name").textContent = text;
  }

  /** A GGUF file as it is; the files of a folder become one first. */
  async function open(files: File[]): Promise<void> {
    const [first] = files;
    if (!first) return;
    element("save").hidden = true;
    if (files.length === 1 && !first.name.endsWith(".safetensors")) return load(first, first.name);
    loading?.abort();
    const abort = (loading = new AbortController());
    report();
    progress("Reading and quantising…");
    try {
      made = await quantize(files, {
        signal: abort.signal,
        onProgress: ({ loaded, total }) => progress("Reading and quantising…", loaded / total),
      });
    } catch (error) {
      element("download").hidden = true;
      element("model-name").textContent = current ? element("model-name").textContent : "No model.";
      return report(error);
    }
    element("save").hidden = false;
    await load(made, "Your checkpoint as int8");
  }

  async function listStored(): Promise<void> {
    const stored = await cache.list();
    const items = stored.map((model) => {
      const item = document.createElement("li");
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Delete";
      remove.setAttribute("aria-label", `Delete ${model.name}`);
      remove.addEventListener("click", async () => {
        await cache.delete(model.source);
        await listStored();
      });
      item.append(`${model.name}, ${megabytes(model.bytes)}${model.complete ? "" : ", not whole yet"} `, remove);
      return item;
    });
    const none = document.createElement("li");
    none.textContent = "Nothing.";
    element("stored").replaceChildren(...(items.length > 0 ? items : [none]));
  }

  const start = async (): Promise<void> => {
    await load(MODEL.url, MODEL.name, MODEL.sha256);
    if (current && (await dropEarlier())) await listStored();
  };
  element("default").addEventListener("click", () => void start());
  element("cancel").addEventListener("click", () => loading?.abort());
  element("address").addEventListener("submit", (event) => {
    event.preventDefault();
    const url = element<HTMLInputElement>("url").value.trim();
    void load(url, url.split("/").pop() || url);
  });
  element<HTMLInputElement>("files").addEventListener("change", (event) => {
    const input = event.target as HTMLInputElement;
    void open([...(input.files ?? [])]);
    input.value = "";
  });
  element("save").addEventListener("click", () => {
    if (!made) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(made);
    link.download = made.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
  const drop = element("drop");
  // Files may be dropped anywhere; the frame says so.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    void dropped(event.dataTransfer).then(open);
  });
  return { start };
}

/** Deletes what earlier versions of this page kept as their default model. Whether there was any. */
async function dropEarlier(): Promise<boolean> {
  const now = new URL(MODEL.url, location.href).href;
  const folder = new URL(".", now).href;
  const earlier = (await cache.list()).filter(
    ({ source }) =>
      source.startsWith(folder) && source !== now && /^pocket-t5-[0-9a-f]{8}\.gguf$/.test(source.slice(folder.length)),
  );
  for (const { source } of earlier) await cache.delete(source);
  return earlier.length > 0;
}

/** The files that were dropped, and those of folders among them. */
async function dropped(transfer: DataTransfer | null): Promise<File[]> {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const loose = [...(transfer?.files ?? [])];
  const folders = entries.filter((entry) => entry?.isDirectory) as FileSystemDirectoryEntry[];
  if (folders.length === 0) return loose;
  const inside = await Promise.all(folders.map(filesOf));
  return inside.flat();
}

async function filesOf(folder: FileSystemDirectoryEntry): Promise<File[]> {
  const reader = folder.createReader();
  const files: File[] = [];
  for (;;) {
    // Comes in portions.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return files;
    for (const entry of entries) {
      if (entry.isFile) {
        files.push(await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)));
      }
    }
  }
}
