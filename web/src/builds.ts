// Which module runs, and how it is loaded.

import { T5Error } from "./errors.js";
import { inNode, nodeModule } from "./platform.js";
import type { Build } from "./types.js";

export type Module = typeof import("../wasm/simd128/t5_wasm.js");

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

/** The build to run, and why. */
export function choose(wanted?: Build): { build: Build; reason: string } {
  if (wanted !== undefined && wanted !== "relaxed" && wanted !== "simd128") {
    throw new T5Error("bad-option", `build: expected "simd128" or "relaxed", found ${JSON.stringify(wanted)}`);
  }
  if (!knows(SIMD)) {
    throw new T5Error("unsupported", "expected a browser with WebAssembly SIMD (2021 or newer), found one without");
  }
  const relaxed = knows(RELAXED);
  if (wanted === "relaxed" && !relaxed) {
    throw new T5Error("unsupported", "build: expected a browser with relaxed SIMD, found one without");
  }
  if (wanted) return { build: wanted, reason: "asked for" };
  return relaxed
    ? { build: "relaxed", reason: "relaxed vectors are available" }
    : { build: "simd128", reason: "relaxed vectors are not available" };
}

/** Loads a module. Each has its own memory, so it is loaded once per worker. */
export async function load(build: Build): Promise<Module> {
  // Two imports with constant names: bundlers follow these only.
  const module: Module =
    build === "relaxed"
      ? ((await import("../wasm/relaxed/t5_wasm.js")) as unknown as Module)
      : await import("../wasm/simd128/t5_wasm.js");
  if (inNode) {
    // Node's fetch does not read files.
    const { readFile } = await nodeModule<typeof import("node:fs/promises")>("fs/promises");
    const path = new URL(["../wasm", build, "t5_wasm_bg.wasm"].join("/"), import.meta.url);
    module.initSync({ module: await readFile(path) });
  } else {
    await module.default();
  }
  return module;
}
