#!/usr/bin/env node
// Runs a WebAssembly program compiled for WASI (a test harness, a bench): wasm/run-wasi.mjs PROGRAM [ARGUMENT]...
// Its folders are the machine's, and the one it is started in.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

process.removeAllListeners("warning"); // "WASI is an experimental feature"
const [program, ...args] = process.argv.slice(2);
const code = program && (await readFile(program).catch(() => undefined));
if (!code) {
  console.error(`run-wasi.mjs: expected a WebAssembly program that is there, found ${program ?? "none"}`);
  process.exit(2);
}
const preopens = { "/": "/", ".": "." };
const wasi = new WASI({ version: "preview1", args: [program, ...args], env: process.env, preopens });
const module = await WebAssembly.compile(code);
// Through functions of our own: called directly, Node 20's crash once the program's memory has grown.
const system = Object.entries(wasi.wasiImport).map(([name, call]) => [name, (...values) => call(...values)]);
const imports = { wasi_snapshot_preview1: Object.fromEntries(system) };
process.exit(wasi.start(await WebAssembly.instantiate(module, imports)));
