// The package with a worker that misbehaves.

import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { choose } from "../dist/builds.js";

/** A copy of the package whose worker does `patch` to the module's Engine. */
export function patched(name, patch) {
  const folder = fileURLToPath(new URL(`../../target/web-test/patched-${name}-${process.pid}`, import.meta.url));
  rmSync(folder, { recursive: true, force: true });
  cpSync(fileURLToPath(new URL("../dist", import.meta.url)), `${folder}/dist`, { recursive: true });
  symlinkSync(fileURLToPath(new URL("../wasm", import.meta.url)), `${folder}/wasm`);
  writeFileSync(`${folder}/package.json`, '{ "type": "module" }');
  const worker = readFileSync(`${folder}/dist/worker.js`, "utf8");
  const build = choose().build;
  writeFileSync(
    `${folder}/dist/worker.js`,
    `import { Engine } from "../wasm/${build}/t5_wasm.js";\n${patch};\n${worker}`,
  );
  return { assets: pathToFileURL(folder), folder, end: () => rmSync(folder, { recursive: true }) };
}
