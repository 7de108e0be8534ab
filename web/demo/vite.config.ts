// The demo page as static files for any host: `npm run demo` serves it, `npm run demo:build` writes demo/dist.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The default model, in this repository; POCKET_T5_MODEL names another file. */
const MODEL = process.env.POCKET_T5_MODEL ?? here("../../runtime/model/pocket-t5.gguf");

/** `virtual:model`: the address and checksum of the default model, which becomes one of the page's files. */
function model(): Plugin {
  const id = "virtual:model";
  let building = true;
  return {
    name: "model",
    configResolved(config) {
      building = config.command === "build";
    },
    configureServer(server) {
      server.middlewares.use("/model.gguf", (_request, response) => void response.end(readFileSync(MODEL)));
    },
    resolveId: (name) => (name === id ? `\0${id}` : undefined),
    load(name) {
      if (name !== `\0${id}`) return undefined;
      if (!existsSync(MODEL)) throw new Error(`expected the default model at ${MODEL}, found no file`);
      const source = readFileSync(MODEL);
      const sha256 = createHash("sha256").update(source).digest("hex");
      // The checksum in the name: a new model is another file, for every cache.
      const fileName = `assets/pocket-t5-${sha256.slice(0, 8)}.gguf`;
      if (building) this.emitFile({ type: "asset", fileName, source });
      const url = building ? `./${fileName}` : "/model.gguf";
      return `export const MODEL = ${JSON.stringify({ url, name: "Pocket T5", sha256, bytes: source.length })};`;
    },
  };
}

/** Where the page will be, for the picture that other sites show beside a link to it: those want a whole address. */
function address(): Plugin {
  const page = process.env.POCKET_T5_PAGE?.replace(/\/?$/, "/") ?? "./";
  return { name: "address", transformIndexHtml: { order: "post", handler: (html) => html.replaceAll("%PAGE%", page) } };
}

/** `service-worker.js` from the package, and `files.json`: what it keeps for the time without a network. */
function offline(): Plugin {
  return {
    name: "offline",
    enforce: "post",
    generateBundle(_options, bundle) {
      // Of the modules one runs, which the page keeps when it knows which. Pictures for other places are not kept.
      const built = Object.keys(bundle).filter((name) => !/\.(gguf|wasm)$/.test(name));
      const still = readdirSync(here("./public")).filter((name) => !name.endsWith(".png"));
      const names = [...built, ...still].sort();
      // A page that is isolated from its next visit on runs another one then.
      const threads = readFileSync(here("../wasm/threads/t5_wasm_bg.wasm"));
      const same = (source: string | Uint8Array) => threads.equals(Buffer.from(source));
      const next = Object.values(bundle).filter((file) => file.type === "asset" && same(file.source));
      if (next.length !== 1) throw new Error(`expected the module for threads among the files, found ${next.length}`);
      const nextNames = JSON.stringify(next.map(({ fileName }) => fileName));
      this.emitFile({ type: "asset", fileName: "next.json", source: nextNames });
      const list = JSON.stringify(["./", ...names]);
      this.emitFile({ type: "asset", fileName: "files.json", source: list });
      const hash = createHash("sha256").update(list);
      for (const name of names) {
        const file = bundle[name];
        if (file === undefined) hash.update(readFileSync(here(`./public/${name}`)));
        else hash.update(file.type === "chunk" ? file.code : file.source);
      }
      // Other bytes for other files: so browsers see that there is something new.
      const version = `const BUILT = ${JSON.stringify(hash.digest("hex").slice(0, 16))};`;
      const script = readFileSync(here("../service-worker.js"), "utf8");
      const source = script.replace('const BUILT = "";', () => version);
      if (source === script) throw new Error('expected the line const BUILT = "" in service-worker.js, found none');
      this.emitFile({ type: "asset", fileName: "service-worker.js", source });
    },
  };
}

export default defineConfig({
  root: here("."),
  base: "./",
  resolve: { alias: { "pocket-t5": here("../dist/index.js") } },
  worker: { format: "es" },
  build: { outDir: here("dist"), emptyOutDir: true, target: "es2022" },
  server: { fs: { allow: [here("..")] } },
  plugins: [model(), address(), offline()],
});
