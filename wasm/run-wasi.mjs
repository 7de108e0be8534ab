#!/usr/bin/env node
// Runs a WebAssembly program compiled for WASI (a test harness, a bench): wasm/run-wasi.mjs PROGRAM [ARGUMENT]...
// Its root folder is the machine's, so that tests find their files and make temporary ones.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

process.removeAllListeners("warning"); // "WASI is an experimental feature"
const [program, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], env: process.env, preopens: { "/": "/" } });
const module = await WebAssembly.compile(await readFile(program));
// Through functions of our own: called directly, Node 20's crash once the program's memory has grown.
const system = Object.entries(wasi.wasiImport).map(([name, call]) => [name, (...values) => call(...values)]);
const imports = { wasi_snapshot_preview1: Object.fromEntries(system) };
process.exit(wasi.start(await WebAssembly.instantiate(module, imports)));
