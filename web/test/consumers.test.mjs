// The package as it is published, in the hands of those who install it: bundlers with their default settings, plain
// pages, and other runtimes than browsers. Each gives the sentence that the README's lines promise.
//
// `npm test` tries some; `npm run test:consumers` (POCKET_T5_CONSUMERS=all, or names) all of them: they download their
// tools. Versions are pinned in each folder's package.json.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { extname } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, missing } from "./chromium.mjs";
import { site, TYPES } from "./site.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const work = here("../../target/web-test/consumers");
const SENTENCE = "Wo ist der Bahnhof?";

const run = (command, args, cwd, env = {}) =>
  execFileSync(command, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });

const wanted = process.env.POCKET_T5_CONSUMERS ?? "html,csp,vite,node-esm,node-cjs";
const isWanted = (name) => wanted === "all" || wanted.split(",").includes(name);
if (wanted !== "all") console.error(`skipped: consumers other than ${wanted}: npm run test:consumers tries them all`);

/** The package, and the model that it depends on. */
let tarballs;
let listed;
let browser;
before(async () => {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  const packed = ["..", "../model"].map((folder) => {
    const [one] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", work], here(folder)));
    return one;
  });
  tarballs = packed.map(({ filename }) => `${work}/${filename}`);
  listed = packed.map(({ files }) => files.map((one) => one.path));
  if (missing) console.error(`skipped: ${missing}`);
  else browser = await launch();
});
after(() => browser?.close());

test("the package holds what its exports name, the documents that its README links to, and the licences", () => {
  const manifest = JSON.parse(readFileSync(here("../package.json"), "utf8"));
  const targets = Object.values(manifest.exports).flatMap((entry) =>
    typeof entry === "string" ? entry : Object.values(entry),
  );
  const named = [manifest.main, manifest.types, ...targets].map((path) => path.replace(/^\.\//, ""));
  const links = [...readFileSync(here("../README.md"), "utf8").matchAll(/\]\((?!https?:)([^)#]+)/g)].map(
    ([, path]) => path,
  );
  assert.ok(links.length > 0);
  for (const path of [...named.filter((path) => !path.includes("*")), ...links, "LICENSE-APACHE", "LICENSE-MIT"]) {
    assert.ok(listed[0].includes(path), `expected ${path} in the package, found ${listed[0].join(", ")}`);
  }
  for (const build of ["simd128", "relaxed", "threads", "convert"])
    assert.ok(listed[0].includes(`wasm/${build}/t5_wasm_bg.wasm`), build);
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) {
    assert.equal(existsSync(here(`../${name}`)), false, `${name} is left behind`);
  }
  const strange = listed[0].filter(
    (path) => !/^(dist|wasm|docs)\/|^(package\.json|README\.md|service-worker\.js|LICENSE-)/.test(path),
  );
  assert.deepEqual(strange, []);
  const model = [
    "CARD.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "LICENSE-cmudict",
    "README.md",
    "index.d.ts",
    "index.js",
    "package.json",
    "pocket-t5.gguf",
  ];
  assert.deepEqual(listed[1].toSorted(), model.toSorted());
  assert.equal(existsSync(here("../model/pocket-t5.gguf")), false, "the model's copy is left behind");
});

/** The folder of a consumer with the package and its tools installed. Undefined, with the reason, if they cannot be. */
function install(name, context) {
  const folder = `${work}/${name}`;
  cpSync(here(`./consumers/${name}`), folder, { recursive: true });
  if (!existsSync(`${folder}/package.json`)) writeFileSync(`${folder}/package.json`, '{ "private": true }\n');
  try {
    run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", ...tarballs], folder);
    return folder;
  } catch (error) {
    const reason = String(error.stderr).trim().split("\n").at(0);
    console.error(`skipped: ${name} could not be installed: ${reason}`);
    context.skip(`could not be installed: ${reason}`);
    return undefined;
  }
}

/** Copies of the package's folders, for those who do not follow workers. */
function copyAssets(folder) {
  for (const part of ["dist", "wasm"]) {
    cpSync(`${folder}/node_modules/pocket-t5/${part}`, `${folder}/dist/pocket-t5/${part}`, { recursive: true });
  }
  cpSync(`${folder}/node_modules/pocket-t5-model/pocket-t5.gguf`, `${folder}/dist/pocket-t5/pocket-t5.gguf`);
  cpSync(`${folder}/index.html`, `${folder}/dist/index.html`);
}

/** What to do in a page's folder, with its bundler's default settings, and where the page is then. */
const PAGES = {
  html: () => ".",
  vite: (folder) => (run("npx", ["vite", "build", "--logLevel", "warn"], folder), "dist"),
  webpack: (folder) => {
    run("npx", ["webpack", "--mode", "production"], folder);
    cpSync(`${folder}/index.html`, `${folder}/dist/index.html`);
    return "dist";
  },
  rollup: (folder) => {
    run("npx", ["rollup", "main.js", "--plugin", "node-resolve", "--format", "es", "--file", "dist/main.js"], folder);
    copyAssets(folder);
    return "dist";
  },
  esbuild: (folder) => {
    run("npx", ["esbuild", "main.js", "--bundle", "--format=esm", "--outfile=dist/main.js"], folder);
    copyAssets(folder);
    return "dist";
  },
  // The worker's side in the bundle, and no worker.
  inline: (folder) => {
    run("npx", ["esbuild", "main.js", "--bundle", "--format=esm", "--outfile=dist/main.js"], folder);
    copyAssets(folder);
    rmSync(`${folder}/dist/pocket-t5/dist`, { recursive: true });
    return "dist";
  },
  parcel: (folder) => {
    run("npx", ["parcel", "build", "index.html", "--no-cache", "--public-url", "./"], folder, { PARCEL_WORKERS: "0" });
    return "dist";
  },
};

for (const [name, build] of Object.entries(PAGES)) {
  const skip = missing ?? !isWanted(name);
  test(`${name}: a page with the README's lines gives the German sentence`, { skip }, async (context) => {
    const folder = install(name, context);
    if (!folder) return;
    const output = build(folder);
    // What converts folders is there, too, though nobody here brings one.
    const convert = readFileSync(here("../wasm/convert/t5_wasm_bg.wasm"));
    const modules = readdirSync(`${folder}/${output}`, { recursive: true }).filter((path) => path.endsWith(".wasm"));
    const is = (path) => readFileSync(`${folder}/${output}/${path}`).equals(convert);
    assert.ok(modules.some(is), `expected the module that converts among ${modules.join(", ")}`);
    const base = `../target/web-test/consumers/${name}/${output}`;
    for (const isolated of [false, true]) {
      const server = await site({ base, isolated });
      const page = await browser.newPage();
      const faults = [];
      page.on("pageerror", (error) => faults.push(String(error)));
      page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
      await page.goto(`${server.url}/`);
      await page.waitForFunction(() => globalThis.result, undefined, { timeout: 120_000 }).catch(() => {});
      const result = await page.evaluate(() => globalThis.result);
      assert.deepEqual(faults, []);
      assert.equal(result?.text, SENTENCE);
      const processors = await page.evaluate(() => navigator.hardwareConcurrency);
      const threads = isolated && processors > 1 && name !== "inline";
      assert.equal(result.info.build, threads ? "threads" : "relaxed", result.info.buildReason);
      // Nothing from elsewhere, and nothing that is not there.
      const code = server.requests.filter((one) => one.path.endsWith(".wasm")).map((one) => one.path);
      assert.equal(code.length, 1, code.join(", "));
      const models = server.requests.filter((one) => one.path.endsWith(".gguf")).map((one) => one.path);
      assert.equal(models.length, 1, models.join(", "));
      await page.close();
      server.close();
    }
  });
}

test(
  "csp: under a strict policy the README's lines work, and without its two exceptions they do not",
  { skip: missing ?? !isWanted("csp") },
  async (context) => {
    const folder = install("html", context);
    if (!folder) return;
    const base = "../target/web-test/consumers/html";
    const map = /<script type="importmap">(.*?)<\/script>/.exec(readFileSync(`${folder}/index.html`, "utf8"))[1];
    const hash = `'sha256-${createHash("sha256").update(map).digest("base64")}'`;
    /** A page with the policy, and the package from an origin of its own, as from a CDN. */
    const visit = async ({ scripts, workers, remote }) => {
      const allow = (path) => (_request, response) => {
        response.setHeader("access-control-allow-origin", "*");
        response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
        response.end(readFileSync(`${folder}${path}`));
      };
      const paths = listed[0]
        .map((path) => `/node_modules/pocket-t5/${path}`)
        .concat("/node_modules/pocket-t5-model/pocket-t5.gguf");
      const host = await site({ routes: Object.fromEntries(paths.map((path) => [path, allow(path)])) });
      const module = `${remote ? host.url : "."}/node_modules/pocket-t5/dist/index.js`;
      const policy = [
        "default-src 'none'",
        `script-src 'self' ${hash} ${remote ? host.url : ""} ${scripts}`,
        `worker-src 'self' ${workers.replace("{host}", host.url)}`,
        `connect-src 'self' ${remote ? host.url : ""}`,
        "img-src data:",
      ].join("; ");
      const page = await browser.newPage();
      const own = await site({
        base,
        routes: {
          "/": (_request, response) => {
            response.setHeader("content-type", "text/html");
            response.setHeader("content-security-policy", policy);
            response.end(
              '<!doctype html><html lang="en"><title>CSP</title><script type="module" src="./main.mjs"></script>',
            );
          },
          "/main.mjs": (_request, response) => {
            response.setHeader("content-type", "text/javascript");
            const lines = readFileSync(`${folder}/main.js`, "utf8").replace(/^import.*$/m, "");
            const fail = "globalThis.result = { code: error.code, message: error.message };";
            const load = `const { T5 } = await import(${JSON.stringify(module)});`;
            response.end(`${load}\ntry { ${lines} } catch (error) { ${fail} }`);
          },
        },
      });
      await page.goto(`${own.url}/`);
      await page.waitForFunction(() => globalThis.result, undefined, { timeout: 120_000 });
      const result = await page.evaluate(() => globalThis.result);
      await page.close();
      own.close();
      host.close();
      return result;
    };
    const wasm = "'wasm-unsafe-eval'";
    for (const found of [
      await visit({ scripts: wasm, workers: "" }),
      await visit({ scripts: wasm, workers: "blob: {host}", remote: true }),
    ]) {
      assert.equal(found.text, SENTENCE, found.message);
    }
    // The policy of the page is that of a worker from a blob; others have the one that comes with their script.
    const noWasm = await visit({ scripts: "", workers: "blob: {host}", remote: true });
    assert.deepEqual([noWasm.code, /wasm-unsafe-eval/.test(noWasm.message)], ["unsupported", true], noWasm.message);
    for (const workers of ["", "blob:"]) {
      const no = await visit({ scripts: wasm, workers, remote: true });
      assert.deepEqual([no.code, /worker-src blob: http/.test(no.message)], ["unsupported", true], no.message);
    }
  },
);

/** How other runtimes run a program with the README's lines. */
const PROGRAMS = {
  "node-esm": (folder) => run(process.execPath, ["main.mjs"], folder),
  "node-cjs": (folder) => run(process.execPath, ["main.cjs"], folder),
  deno: (folder) => run("npx", ["deno", "run", "--allow-all", "main.mjs"], folder),
  jsdom: (folder) => run(process.execPath, ["main.mjs"], folder),
  miniflare: (folder) => run(process.execPath, ["main.mjs"], folder),
  bun: (folder) => run("npx", ["bun", "run", "main.mjs"], folder),
};

for (const [name, start] of Object.entries(PROGRAMS)) {
  test(`${name}: a program with the README's lines gives the German sentence`, { skip: !isWanted(name) }, (context) => {
    if (name === "node-cjs" && !process.features.require_module)
      return context.skip("this Node does not require modules");
    const folder = install(name, context);
    if (!folder) return;
    const { text, info } = JSON.parse(start(folder).trim().split("\n").at(-1));
    assert.equal(text, SENTENCE);
    assert.ok(info.threads >= 1);
  });
}

test("types and exports are as tools expect them", { skip: !isWanted("lint") }, (context) => {
  const folder = `${work}/lint`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/package.json`, '{ "private": true }\n');
  try {
    run("npm", ["install", "--no-audit", "--no-fund", "publint@0.3.25", "@arethetypeswrong/cli@0.18.5"], folder);
  } catch (error) {
    return context.skip(`could not be installed: ${String(error.stderr).trim().split("\n").at(0)}`);
  }
  for (const tarball of tarballs) {
    run("npx", ["publint", "--strict", tarball], folder);
    const files = ["service-worker", "pocket-t5.gguf"];
    run("npx", ["attw", "--profile", "esm-only", "--exclude-entrypoints", ...files, "--", tarball], folder);
  }
  assert.ok(readdirSync(folder).length > 0);
});
