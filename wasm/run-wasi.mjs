#!/usr/bin/env node
// Runs a WebAssembly program compiled for WASI (a test harness, a bench): wasm/run-wasi PROGRAM [ARGUMENT]...
// Its root folder is the machine's, so that tests find their files and make temporary ones.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

process.removeAllListeners("warning"); // "WASI is an experimental feature"
const [program, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], env: process.env, preopens: { "/": "/" } });
const module = await WebAssembly.compile(await readFile(program));
process.exit(wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject())));
