// Which module runs, and how it is loaded.

import { T5Error } from "./errors.js";
import { inNode, nodeModule } from "./platform.js";
import { startThreads } from "./threads.js";
import type { Build, Isa } from "./types.js";

/** The interface that all builds share. */
export type Module = typeof import("../wasm/simd128/t5_wasm.js");

/** What makes one file of a checkpoint. */
export type Converter = typeof import("../wasm/convert/t5_wasm.js");

// The smallest modules that use each extension: validation says whether the engine knows it.
const HEADER = [0, 97, 115, 109, 1, 0, 0, 0];
/** `(func (result v128) i32.const 0, i8x16.splat, i8x16.popcnt)` */
const SIMD = [...HEADER, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
/** The same with `i8x16.relaxed_swizzle` of two splats. */
const RELAXED = [
  ...HEADER, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
];

function knows(module: number[]): boolean {
  return WebAssembly.validate(new Uint8Array(module));
}

/** A token's work is too short for more threads to help. */
const MOST_THREADS = 64;

/** Which build to run, on how many threads (fewer if workers cannot be started), and why. */
export interface Choice {
  build: Build;
  threads: number;
  reason: string;
  /** Whether the caller chose the build: then no other one is tried. */
  asked: boolean;
  /** The module's code, if the caller gave it. */
  code?: WebAssembly.Module;
}

/** Chooses the build: the one asked for, the one whose code was given, or else the fastest one that can run here. */
export function choose(wanted?: Build, threads?: number, code?: WebAssembly.Module): Choice {
  if (wanted !== undefined && wanted !== "threads" && wanted !== "relaxed" && wanted !== "simd128") {
    throw new T5Error(
      "bad-option",
      `build: expected "threads", "relaxed" or "simd128", found ${JSON.stringify(wanted)}`,
    );
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 0 && threads <= MOST_THREADS)) {
    throw new T5Error("bad-option", `threads: expected 0 to ${MOST_THREADS}, found ${JSON.stringify(threads)}`);
  }
  if (threads === 0 && wanted === "threads") {
    throw new T5Error("bad-option", 'threads: expected 1 or more with the build "threads", found 0');
  }
  if (code) {
    // A place that forbids compiling bytes also fails the feature tests below, so they are skipped.
    if (wanted === "threads") throw new T5Error("bad-option", 'build: expected "relaxed" or "simd128" with wasm');
    return { build: wanted ?? "simd128", threads: 1, reason: "its code was given", asked: true, code };
  }
  if (!knows(SIMD)) {
    throw new T5Error("unsupported", "expected a browser with WebAssembly SIMD (2021 or newer), found one without");
  }
  const relaxed = knows(RELAXED);
  if ((wanted === "relaxed" || wanted === "threads") && !relaxed) {
    throw new T5Error("unsupported", "build: expected a browser with relaxed SIMD, found one without");
  }
  // Node's memory can always be shared.
  const shares = typeof SharedArrayBuffer === "function" && (inNode || globalThis.crossOriginIsolated === true);
  if (wanted === "threads" && !shares) {
    throw new T5Error("unsupported", "build: expected a cross-origin isolated page, found one that is not");
  }
  const processors = globalThis.navigator?.hardwareConcurrency ?? 1;
  const many = threads ?? worthwhile(processors);
  if (wanted) return { build: wanted, threads: wanted === "threads" ? many : 1, reason: "asked for", asked: true };
  if (!relaxed) return { build: "simd128", threads: 1, reason: "relaxed vectors are not available", asked: false };
  const one = (why: string): Choice => ({
    build: "relaxed",
    threads: 1,
    reason: `relaxed vectors are available; one thread because ${why}`,
    asked: false,
  });
  if (threads === 0) return one("it is this one");
  if (threads === 1) return one("one was asked for");
  if (!shares) return one("the page is not cross-origin isolated");
  if (processors < 2) return one("there is one processor");
  const isolated = inNode ? "" : ", the page is cross-origin isolated";
  const reason = `relaxed vectors are available${isolated}, and there are ${processors} processors`;
  return { build: "threads", threads: many, reason, asked: false };
}

/** Throws if `isa` names vector instructions that the build does not contain. */
export function checkIsa(build: Build, isa?: Isa): void {
  if (isa === undefined || isa === "simd128" || (isa === "relaxed" && build !== "simd128")) return;
  const has = build === "simd128" ? '"simd128"' : '"simd128" or "relaxed"';
  throw new T5Error("bad-option", `isa: expected ${has} with the build ${build}, found ${JSON.stringify(isa)}`);
}

/** How many threads to use: often two processors share a core, and phones have slow cores among them. */
function worthwhile(processors: number): number {
  return processors < 4 ? processors : Math.min(8, processors >> 1);
}

/** A module that is ready to run, and what was chosen in the end. */
export interface Loaded extends Choice {
  module: Module;
  /** Where its code was loaded from; undefined if the caller gave it. */
  address: URL | undefined;
  /** How many workers run as additional threads; resolves once each has started or failed to. */
  workers: Promise<number>;
  /** Whether the browser limited its memory to less than another build could use. */
  small: boolean;
}

/** What to try where a build cannot be started. */
const NEXT: Record<Build, Build | undefined> = { threads: "relaxed", relaxed: "simd128", simd128: undefined };

/**
 * Loads a build's module. If that fails and the caller did not ask for this build, the next simpler one is tried. Each
 * worker loads its own copy. `assets` is a folder with copies of the modules, if they are not beside this script.
 */
export async function load(choice: Choice, assets?: string): Promise<Loaded> {
  const { build } = choice;
  try {
    return await start(choice, assets);
  } catch (error) {
    const why = reasonOf(error);
    if (choice.asked || !NEXT[build]) {
      throw new T5Error("unsupported", `the build ${build} could not be started: ${why}`, { cause: error });
    }
    return load(simpler(choice, `could not be started: ${why}`), assets);
  }
}

/**
 * Loads the module that turns a checkpoint's files into one GGUF file. It is separate because most visitors load a
 * model that is one file already and never need it.
 */
export async function loadConverter(): Promise<Converter> {
  // Throws a clear error if the browser has no WebAssembly SIMD, which this module needs too.
  choose(undefined, 1);
  try {
    const address = new URL("../wasm/convert/t5_wasm_bg.wasm", import.meta.url);
    const [module, compiled] = await Promise.all([import("../wasm/convert/t5_wasm.js"), compile(address)]);
    module.initSync({ module: compiled });
    return module;
  } catch (error) {
    const what = `the module that converts checkpoints could not be started: ${reasonOf(error)}`;
    throw new T5Error("unsupported", what, { cause: error });
  }
}

/** Why a module did not start; names the setting if a content security policy forbids it. */
function reasonOf(error: unknown): string {
  const { message } = error as Error;
  const policy = /content security policy|unsafe-eval/i.test(message);
  return policy ? `${message} (a content security policy must allow script-src 'wasm-unsafe-eval')` : message;
}

/** The next simpler choice. */
export function simpler(choice: Choice, why: string): Choice {
  const reason = `${choice.reason}; ${choice.build} ${why}`;
  return { build: NEXT[choice.build] ?? choice.build, threads: 1, reason, asked: false };
}

async function start(choice: Choice, assets: string | undefined): Promise<Loaded> {
  const module = await importBuild(choice.build);
  if (choice.code) {
    module.initSync({ module: choice.code });
    return { ...choice, module, address: undefined, workers: Promise.resolve(0), small: false };
  }
  const address = assets ? new URL(`wasm/${choice.build}/t5_wasm_bg.wasm`, assets) : addressOf(choice.build);
  const compiled = await compile(address);
  if (choice.build !== "threads") {
    module.initSync({ module: compiled });
    return { ...choice, module, address, workers: Promise.resolve(0), small: false };
  }
  let memory: WebAssembly.Memory;
  let most = 0;
  try {
    // By default the module asks for 4 GB, all that 32 bits can address.
    ({ memory } = module.initSync({ module: compiled }));
  } catch {
    // Some systems (iOS) refuse to reserve 4 GB of shared memory but allow less.
    const { maximum, ...less } = lessMemory();
    ({ memory } = module.initSync({ module: compiled, ...less } as Parameters<Module["initSync"]>[0]));
    most = maximum;
  }
  const reason = most > 0 ? `${choice.reason}; the browser shares ${most / 16} MiB at most` : choice.reason;
  const workers = startThreads(choice.threads - 1, compiled, memory);
  return { ...choice, reason, module, address, workers, small: most > 0 };
}

/**
 * Maximum sizes to try instead of 4 GB, in pages of 64 KiB. With less than half a gibibyte a build without shared
 * memory is the better choice.
 */
const MAXIMA = [32768, 16384, 8192];
/** Initial size, slightly more than the module requires; it grows as needed. */
const FIRST_PAGES = 32;

function lessMemory(): { memory: WebAssembly.Memory; maximum: number } {
  let refused: unknown;
  for (const maximum of MAXIMA) {
    try {
      return { memory: new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared: true }), maximum };
    } catch (error) {
      refused = error;
    }
  }
  throw refused;
}

async function compile(address: URL): Promise<WebAssembly.Module> {
  if (inNode) {
    // Node's fetch does not read files.
    const { readFile } = await nodeModule<typeof import("node:fs/promises")>("fs/promises");
    return WebAssembly.compile(await readFile(address));
  }
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: expected a module, found HTTP status ${response.status}`);
  // Compiling while the bytes arrive requires this content type, which some hosts do not send.
  return response.headers.get("content-type")?.startsWith("application/wasm")
    ? WebAssembly.compileStreaming(response)
    : WebAssembly.compile(await response.arrayBuffer());
}

/** The address of a build's module. Bundlers only find addresses that are written out as constants. */
function addressOf(build: Build): URL {
  switch (build) {
    case "threads":
      return new URL("../wasm/threads/t5_wasm_bg.wasm", import.meta.url);
    case "relaxed":
      return new URL("../wasm/relaxed/t5_wasm_bg.wasm", import.meta.url);
    case "simd128":
      return new URL("../wasm/simd128/t5_wasm_bg.wasm", import.meta.url);
  }
}

/** Imports a build's JavaScript, written out for bundlers as above. `threads` has some functions more. */
async function importBuild(build: Build): Promise<Module> {
  switch (build) {
    case "threads":
      return (await import("../wasm/threads/t5_wasm.js")) as unknown as Module;
    case "relaxed":
      return (await import("../wasm/relaxed/t5_wasm.js")) as unknown as Module;
    case "simd128":
      return import("../wasm/simd128/t5_wasm.js");
  }
}
