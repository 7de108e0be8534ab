// The demo page as a visitor meets it, in a real browser: every state, with a screenshot, checked by axe-core.
//
// Screenshots go to target/web-screenshots. The model is the built-in one.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { T5 } from "../dist/index.js";
import { launch, missing } from "./chromium.mjs";
import { described, folder, model, pocket } from "./models.mjs";
import { file, site } from "./site.mjs";

if (missing) console.error(`skipped: ${missing}`);
const inChromium = (name, run) => test(name, { skip: missing }, run);

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const screenshots = here("../../target/web-screenshots");
const axe = readFileSync(here("../node_modules/axe-core/axe.min.js"), "utf8");

const DESK = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 664 };

let browser;
before(async () => {
  if (missing) return;
  mkdirSync(screenshots, { recursive: true });
  build(pocket.path);
  browser = await launch();
});
after(() => browser?.close());

/** Builds the page with a built-in model, by itself into demo/dist. */
function build(POCKET_T5_MODEL, ...options) {
  const vite = here("../node_modules/vite/bin/vite.js");
  const command = [vite, "build", "--config", "demo/vite.config.ts", "--logLevel", "warn", ...options];
  execFileSync(process.execPath, command, {
    cwd: here(".."),
    env: { ...process.env, POCKET_T5_MODEL },
    stdio: "inherit",
  });
}

/** How long anything may take that happens sooner or later: a busy machine is no fault. */
const PATIENCE_MS = 120_000;

/** Waits for what happens sooner or later. */
async function until(holds, what) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `${what}: not after ${PATIENCE_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const ready = (page) => page.locator("body[data-model=ready]").waitFor();

/** The page in a fresh profile. */
async function visit({ routes = {}, viewport = DESK, hash = "", wait = true, prepare, ...options } = {}) {
  const server = await site({ base: "demo/dist", routes });
  const permissions = ["clipboard-read", "clipboard-write"];
  const context = await browser.newContext({ viewport, permissions, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await prepare?.(page);
  await page.goto(`${server.url}/${hash}`);
  if (wait) await ready(page);
  return {
    server,
    context,
    page,
    async close() {
      assert.deepEqual(faults, []);
      await context.close();
      server.close();
    },
  };
}

/** The answer to what is written, once it is whole. */
async function answer(page) {
  await page.locator("body.answered #answer[aria-busy=false]").waitFor();
  return page.locator("#answer").innerText();
}

/** Writes a text and waits for the answer to it. */
async function ask(page, text) {
  await page.fill("#source", "");
  await page.locator("body:not(.answered)").waitFor();
  await page.fill("#source", text);
  return answer(page);
}

async function choose(page, view) {
  await page.click(`#tab-${view}`);
  await page.locator(`body[data-view=${view}]`).waitFor();
}

/** No part of the page is wider than the screen: from small phones to desks. */
async function fits(page, state) {
  const before = page.viewportSize();
  for (const width of [320, 390, 768, 1280]) {
    await page.setViewportSize({ width, height: 844 });
    const found = await page.evaluate(async () => {
      // The page hears of its new size with the next frame, before anything of it is shown.
      await new Promise(requestAnimationFrame);
      return [
        document.documentElement.scrollWidth,
        document.querySelector("dialog[open]")?.scrollWidth ?? 0,
        document.querySelector(".sides").scrollWidth,
      ];
    });
    assert.ok(Math.max(...found) <= width, `${state}: ${found} pixels wide on a screen of ${width}`);
  }
  await page.setViewportSize(before);
}

/** Waits for whatever fades in or out; what moves without end is no part of it. */
const settled = (page) =>
  page.evaluate(async () => {
    const ending = document.getAnimations().filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime));
    await Promise.allSettled(ending.map(({ finished }) => finished));
  });

/** Light and dark, desk and phone; and no fault of accessibility in any of them. */
async function look(page, state) {
  const before = page.viewportSize();
  for (const colorScheme of ["light", "dark"]) {
    for (const [name, size] of Object.entries({ desk: DESK, phone: PHONE })) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize(size);
      // What is still fading in has other colours than what stays.
      await settled(page);
      await page.screenshot({ path: `${screenshots}/${state}-${colorScheme}-${name}.png` });
      // Each colour and each size once.
      if ((colorScheme === "light") !== (name === "desk")) continue;
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const found = violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html}`));
      assert.deepEqual(found, [], `${state}, ${colorScheme}, ${name}`);
    }
  }
  await page.setViewportSize(before);
  await fits(page, state);
}

/** Waits until the page's service worker keeps its files, the modules of this visit and the next among them. */
const kept = (page) =>
  until(
    () =>
      page.evaluate(async () => {
        if (!(await navigator.serviceWorker.ready).active) return false;
        const wanted = crossOriginIsolated || navigator.hardwareConcurrency < 2 ? 1 : 2;
        for (const name of await caches.keys()) {
          const urls = (await (await caches.open(name)).keys()).map((request) => request.url);
          const modules = urls.filter((url) => url.endsWith(".wasm"));
          if (name.startsWith("pocket-t5 page") && modules.length >= wanted) return true;
        }
        return false;
      }),
    "the modules are kept",
  );

async function openSettings(page) {
  await page.click("#open-settings");
  await page.locator("#settings[open]").waitFor();
}

async function loadAddress(page, address) {
  if (!(await page.isVisible("#url"))) await page.click("summary");
  await page.fill("#url", address);
  await page.keyboard.press("Enter");
}

/** What the library itself answers: the page shows the same. */
async function expected(task, texts) {
  const t5 = await T5.load(pocket.path);
  const answers = [];
  for (const text of texts) answers.push(await t5.generate(text, { task, beams: 4 }).text());
  t5.dispose();
  return answers;
}

/** Words that are lit on one side. */
const lit = (page, side) => page.locator(`#${side} .lit`).allTextContents();

inChromium("a first visit: examples, an answer to one of them, nothing else is transferred", async () => {
  const { page, server, close } = await visit();
  await look(page, "empty");
  await page.locator("#examples button").first().click();
  const [german] = await expected("translation_en_to_de", ["Where is the station?"]);
  assert.equal(await answer(page), german);
  assert.equal(await page.getAttribute("#answer", "lang"), "de");
  assert.equal(await page.getAttribute("#source", "lang"), "en");
  assert.equal(server.requests.filter((one) => one.path.endsWith(".png")).length, 0);
  await look(page, "answered");
  await openSettings(page);
  // The panel asks the worker for some of it: until that has answered, it shows what it did before.
  const panel = page.locator("#device");
  await panel.filter({ hasText: "Last answer" }).waitFor();
  const device = await panel.innerText();
  assert.match(device, /(relaxed|simd128), \d+ threads?/);
  assert.match(device, /Memory\s+[\d.]+ MB/);
  assert.match(device, /Last answer\s+4 words in \d+ ms/);
  await look(page, "settings");
  await close();
});

inChromium("answers come while one types, sentence by sentence, and what stays is not written anew", async () => {
  const { page, close } = await visit();
  const texts = ["Where is the station?", "The cat sleeps.", "We are going to the beach tomorrow."];
  const [station, cat, beach] = await expected("translation_en_to_de", texts);
  await page.locator("#source").pressSequentially(texts[0], { delay: 25 });
  await until(async () => (await page.locator("#answer").innerText()) === station, station);
  // A sentence is written anew once it is whole. It is when screen readers are told.
  await until(async () => (await page.textContent("#said")) === station, `said: ${station}`);
  await page.locator("#answer > span").first().evaluate((sentence) => (sentence.mine = true));
  await page.locator("#source").pressSequentially(`  ${texts[1]}\n\n${texts[2]}`, { delay: 10 });
  const whole = `${station}  ${cat}\n\n${beach}`;
  await until(async () => (await page.locator("#answer").textContent()) === whole, whole);
  assert.equal(await page.locator("#answer > span").first().evaluate((sentence) => sentence.mine), true);
  await answer(page);
  // Only what stands there counts: the answer to an earlier text never comes after it.
  for (let i = 0; i < 20; i++) await page.fill("#source", `${texts[i % 3]} ${"So ".repeat(i)}`);
  await page.fill("#source", texts[1]);
  await until(async () => (await page.locator("#answer").innerText()) === cat, cat);
  // Screen readers are told once nobody types.
  await until(async () => (await page.textContent("#said")) === cat, `said: ${cat}`);
  assert.equal(await page.locator("#answer").innerText(), cat);
  assert.equal(await page.getAttribute("#said", "lang"), "de");
  await page.click("#clear");
  assert.equal(await page.locator("#answer").innerText(), "");
  await close();
});

inChromium("words that belong together light up: by pointer, by keys, by tapping", async () => {
  const { page, close } = await visit();
  await ask(page, "My brother reads a book. Where is the station?");
  await page.locator(".word", { hasText: "Bahnhof" }).hover();
  assert.deepEqual([await lit(page, "mirror"), await lit(page, "answer")], [["station"], ["Bahnhof"]]);
  await page.screenshot({ path: `${screenshots}/lit-desk.png` });
  // The other way round: over the word in the text.
  const book = await page.locator("#mirror span", { hasText: "book" }).boundingBox();
  await page.mouse.move(book.x + book.width / 2, book.y + book.height / 2);
  assert.deepEqual([await lit(page, "mirror"), await lit(page, "answer")], [["book"], ["Buch"]]);
  await page.mouse.move(2, 2);
  assert.deepEqual([await lit(page, "mirror"), await lit(page, "answer")], [[], []]);
  // The caret among the words of the text.
  await page.locator("#source").focus();
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("Control+ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.deepEqual([await lit(page, "mirror"), await lit(page, "answer")], [["brother"], ["Bruder"]]);
  // Words of the answer: one stop for the Tab key, arrows within, told to screen readers.
  await page.locator("#answer").focus();
  await page.keyboard.press("End");
  assert.deepEqual([await lit(page, "mirror"), await lit(page, "answer")], [["station"], ["Bahnhof"]]);
  assert.equal(await page.textContent("#said"), "Bahnhof: station");
  await page.keyboard.press("Home");
  assert.deepEqual(await lit(page, "mirror"), ["My"]);
  await look(page, "lit");
  await close();

  const phone = await visit({ viewport: PHONE, hasTouch: true, isMobile: true });
  await ask(phone.page, "Where is the station?");
  const word = await phone.page.locator("#mirror span", { hasText: "station" }).boundingBox();
  await phone.page.touchscreen.tap(word.x + word.width / 2, word.y + word.height / 2);
  await until(async () => (await lit(phone.page, "answer"))[0] === "Bahnhof", "the tapped word's partner");
  await phone.page.locator(".word", { hasText: "Wo" }).tap();
  await until(async () => (await lit(phone.page, "mirror"))[0] === "Where", "the tapped word of the answer");
  await phone.close();
});

inChromium("other wordings come on demand: from a word on, and of whole sentences", async () => {
  const { page, close } = await visit();
  const first = await ask(page, "The cat sleeps. Where is the station?");
  await page.locator(".word", { hasText: "ist" }).click();
  await page.locator("#words-list button").nth(3).waitFor();
  assert.equal(await page.textContent("#words-title"), "istis");
  const wordings = await page.locator("#words-list button").allTextContents();
  assert.ok(wordings.every((text) => text.startsWith("… ")), wordings.join());
  assert.deepEqual(await lit(page, "mirror"), ["is"]);
  await look(page, "wordings");
  await page.locator("#words-list button").first().click();
  const second = await answer(page);
  assert.ok(second.startsWith("Die Katze schläft. Wo ") && second !== first, second);
  assert.ok(second.endsWith(wordings[0].slice(2)), second);
  // By keyboard: there and back.
  await page.locator("#answer").focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await page.locator("#words-list button:focus").waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Escape");
  assert.equal(await page.isVisible("#words"), false);
  assert.equal(await page.evaluate(() => document.activeElement.id), "answer");
  // All sentences, each with its own list.
  await page.click("#more");
  await page.locator("#alternatives ul").nth(1).waitFor();
  await until(async () => !(await page.locator("#alternatives").innerText()).includes("Looking"), "the lists");
  await look(page, "alternatives");
  const other = page.locator("#alternatives ul").nth(1).locator("button").first();
  const text = await other.textContent();
  await other.click();
  await until(async () => (await page.locator("#answer").innerText()).endsWith(text), text);
  await page.click("#more");
  assert.equal(await page.isVisible("#alternatives"), false);
  await close();
});

/** A page on a device with these voices, where `spoken` has what was said: text, language, its voice's language. */
const withVoices = (voices) => (page) =>
  page.addInitScript((voices) => {
    globalThis.spoken = [];
    globalThis.SpeechSynthesisUtterance = class {
      constructor(text) {
        this.text = text;
      }
    };
    const speak = ({ text, lang, voice }) => globalThis.spoken.push([text, lang, voice?.lang]);
    const value = { getVoices: () => voices, cancel() {}, speak };
    Object.defineProperty(globalThis, "speechSynthesis", { value });
  }, voices);

inChromium("answers are copied, spoken, and held by a link that no server sees", async () => {
  const prepare = withVoices([
    { lang: "en-US", localService: true },
    { lang: "de-DE", localService: true },
  ]);
  const { page, server, context, close } = await visit({ prepare });
  const german = await ask(page, "Where is the station?");
  await page.click("#copy");
  await page.locator("#copy[aria-label=Copied]").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), german);
  await page.locator("#copy[aria-label='Copy the answer']").waitFor();
  await page.click("#speak-answer");
  await page.click("#speak-source");
  assert.deepEqual(await page.evaluate(() => spoken), [
    [german, "de", "de-DE"],
    ["Where is the station?", "en", "en-US"],
  ]);
  await page.selectOption("#to", "fr");
  await answer(page);
  await page.click("#link");
  await page.locator("#link[aria-label='Link copied']").waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await context.newPage();
  await other.goto(link);
  await ready(other);
  assert.equal(await answer(other), (await expected("translation_en_to_fr", ["Where is the station?"]))[0]);
  assert.equal(await other.inputValue("#to"), "fr");
  assert.ok(server.requests.every(({ path }) => !path.includes("station")));
  // What is written afterwards is not what the link holds.
  await other.fill("#source", "The cat sleeps.");
  assert.equal(await other.evaluate(() => location.hash), "");
  // A reload keeps it: in this tab alone.
  await answer(other);
  await other.reload();
  await ready(other);
  assert.equal(await other.inputValue("#source"), "The cat sleeps.");
  await close();
});

inChromium("only voices of this device speak", async () => {
  const prepare = withVoices([
    { lang: "en-US", localService: false },
    { lang: "en_GB", localService: true },
    { lang: "de-DE", localService: false },
  ]);
  const { page, close } = await visit({ prepare });
  await ask(page, "Where is the station?");
  const press = (id) =>
    page.evaluate((id) => {
      const button = document.getElementById(id);
      button.click();
      return [button.title, globalThis.spoken];
    }, id);
  const spoken = [["Where is the station?", "en", "en_GB"]];
  assert.deepEqual(await press("speak-source"), ["Stop speaking", spoken]);
  assert.deepEqual(await press("speak-answer"), ["This device has no voice for this language", spoken]);
  await close();
});

inChromium("tabs: pronunciations in both alphabets, corrections as changes, gaps filled", async () => {
  const { page, close } = await visit();
  await page.locator("#tab-translate").focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-pronounce");
  assert.equal(await page.isVisible("#languages"), false);
  await ask(page, "pocket");
  assert.equal(await page.textContent(".ipa"), "/ˈpɑkət/");
  const parts = (all) => all.map((one) => [...one.children].map((part) => part.textContent));
  const sounds = await page.locator(".sounds li").evaluateAll(parts);
  assert.deepEqual(sounds, [["ˈp", "P"], ["ɑ", "AA1"], ["k", "K"], ["ə", "AH0"], ["t", "T"]]);
  await look(page, "pronounced");
  await ask(page, "A foreign language!");
  assert.equal(await page.locator(".pronounced").count(), 3);
  await page.click("#copy");
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^\/.+ ˈfɔɹən .+\/$/);

  await choose(page, "correct");
  await ask(page, "Their is a problem with teh car. Where is the station?");
  assert.deepEqual(await page.locator("#answer del").allTextContents(), ["taken out: Their ", "taken out: teh "]);
  assert.deepEqual(await page.locator("#answer ins").allTextContents(), ["added: There ", "added: the "]);
  assert.deepEqual(await page.locator("#mirror .slip").allTextContents(), ["Their", "teh"]);
  assert.match(await page.textContent("#hint"), /^2 changes\./);
  await look(page, "corrected");
  await page.click("#take");
  await page.locator("#hint", { hasText: "Nothing to correct." }).waitFor();
  assert.equal(await page.inputValue("#source"), "There is a problem with the car. Where is the station?");
  assert.equal(await page.isDisabled("#take"), true);

  await choose(page, "gaps");
  await page.fill("#source", "Without a gap");
  await page.locator("#note", { hasText: "two underscores" }).waitFor();
  await page.fill("#source", "It was a dark and ");
  await page.click("#gap");
  await page.keyboard.type(" night.");
  await answer(page);
  assert.equal(await page.inputValue("#source"), "It was a dark and ___ night.");
  assert.equal(await page.locator("#answer mark").count(), 1);
  const filled = await page.locator("#answer p").first().innerText();
  assert.match(filled, /^It was a dark and .+ night\.$/);
  await look(page, "filled");
  await page.locator(".ways button").first().click();
  assert.notEqual(await page.locator("#answer p").first().innerText(), filled);
  // Without its gap it has no answer any longer, to copy or to hear.
  await page.fill("#source", "Without a gap");
  await page.locator("body:not(.answered)").waitFor();
  // Each tab has its own text.
  await choose(page, "pronounce");
  assert.equal(await page.inputValue("#source"), "A foreign language!");
  await close();
});

inChromium("the longest texts of each task fit on every screen, and a phone shows their answers", async () => {
  const { page, close } = await visit({ viewport: PHONE });
  const insight = async (what) => {
    const box = await page.locator("#answer").boundingBox();
    const tools = (await page.locator("#answer-tools").boundingBox()).y;
    const scrolled = await page.evaluate(() => scrollY);
    // Two lines of it at least, without scrolling.
    const seen = `${what}: ${JSON.stringify(box)}, ${scrolled}`;
    assert.ok(scrolled === 0 && box.y + 60 <= PHONE.height && tools > box.y, seen);
    return box;
  };
  for (const view of ["translate", "pronounce", "correct", "gaps"]) {
    await choose(page, view);
    const buttons = page.locator("#examples button");
    const texts = await buttons.allTextContents();
    assert.ok(texts.length > 1);
    await buttons.nth(texts.map((text) => text.length).indexOf(Math.max(...texts.map((text) => text.length)))).click();
    await answer(page);
    const { y, height } = await insight(view);
    if (view === "translate") assert.ok(y + height <= PHONE.height, `all of it: ${y} + ${height}`);
    await fits(page, view);
    await page.fill("#source", "");
  }
  // A word that cannot be broken, and long texts.
  await choose(page, "translate");
  const paragraphs = "My brother lives in a small town. I have never seen such a beautiful house!\n\n".repeat(4);
  for (const text of ["Donaudampfschifffahrtsgesellschaft".repeat(5), paragraphs]) {
    await ask(page, text);
    await insight(text);
    await look(page, text === paragraphs ? "long" : "unbreakable");
  }
  await page.locator(".word").first().click();
  await page.locator("#words-list button").first().waitFor();
  await fits(page, "wordings of a long text");
  await close();
});

inChromium("settings: care and limits change the answers and last", async () => {
  const { page, close } = await visit();
  await ask(page, "I have never seen such a beautiful house.");
  await openSettings(page);
  await page.fill("#limit", "3");
  await page.locator("#limit").blur();
  assert.equal(await page.inputValue("#limit"), "8");
  await page.locator("#note", { hasText: "Cut off after 8 parts of words." }).waitFor({ state: "attached" });
  await page.check("#care input[value='1']");
  await page.keyboard.press("Escape");
  assert.equal(await page.isVisible("#settings"), false);
  await look(page, "cut");
  await page.reload();
  await ready(page);
  assert.equal(await page.inputValue("#limit"), "8");
  assert.equal(await page.isChecked("#care input[value='1']"), true);
  await close();
});

inChromium("the page works offline from its second visit on", async () => {
  const { server, context, page, close } = await visit();
  await kept(page);
  // Of three builds the one that runs, after the model that of the next visit, and each once.
  const modules = () => server.requests.filter((one) => one.path.endsWith(".wasm")).map((one) => one.path);
  const several = await page.evaluate(() => navigator.hardwareConcurrency > 1);
  assert.equal(modules().length, several ? 2 : 1);
  assert.equal(new Set(modules()).size, modules().length);
  const models = () => server.requests.filter((one) => one.path.endsWith(".gguf")).length;
  assert.equal(models(), 1);
  // Nobody answers any more.
  server.close();
  await page.reload();
  await ready(page);
  await ask(page, "Where is the station?");
  assert.equal(models(), 1);
  await context.setOffline(true);
  await page.locator("#network:visible").waitFor();
  await look(page, "offline");
  await openSettings(page);
  assert.match(await page.textContent("#stored li"), /^pocket-t5-.*\.gguf, [\d.]+ MB/);
  await close();
});

inChromium("the service worker isolates the page from its second visit on", async () => {
  const { page, close } = await visit();
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  await kept(page);
  await page.reload();
  await ready(page);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  assert.notEqual(await ask(page, "Where is the station?"), "");
  await openSettings(page);
  // The bundle's own threads.
  const processors = await page.evaluate(() => navigator.hardwareConcurrency);
  const threads = processors > 1 ? /(relaxed|simd128), [2-8] threads/ : /(relaxed|simd128), 1 thread/;
  assert.match(await page.locator("#device").innerText(), threads);
  await close();
});

inChromium("the page can be installed, and links to it have a picture", async () => {
  const { page, context, server, close } = await visit();
  await kept(page);
  const protocol = await context.newCDPSession(page);
  const { errors, data } = await protocol.send("Page.getAppManifest");
  assert.deepEqual(errors, []);
  const { installabilityErrors } = await protocol.send("Page.getInstallabilityErrors");
  // The tests' windows are private ones.
  assert.deepEqual(installabilityErrors.filter(({ errorId }) => errorId !== "in-incognito"), []);
  const size = async (address) => {
    const bytes = Buffer.from(await (await fetch(new URL(address, `${server.url}/`))).arrayBuffer());
    assert.equal(bytes.toString("latin1", 1, 4), "PNG", address);
    return `${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`;
  };
  for (const { src, sizes, type } of JSON.parse(data).icons) {
    if (type === "image/png") assert.equal(await size(src), sizes);
    else assert.equal((await fetch(`${server.url}/${src}`)).status, 200);
  }
  const meta = (name) => page.getAttribute(`meta[property='og:${name}']`, "content");
  assert.equal(await size(await meta("image")), `${await meta("image:width")}x${await meta("image:height")}`);
  for (const name of ["title", "description", "type", "image:alt"]) assert.notEqual((await meta(name)) ?? "", "");
  await close();
});

inChromium("who made the model, and under which terms, is said with links", async () => {
  const credits = {
    "general.license": "cc-by-2.0",
    "general.attribution": "Tatoeba (https://tatoeba.org, CC BY 2.0 FR), <b>CMUdict</b> and javascript:alert(1).",
    "general.license.link": "https://creativecommons.org/licenses/by/2.0/",
  };
  const credited = described(readFileSync(model("unigram", "q8_0")), credits);
  const { page, server, close } = await visit({ routes: { "/credited.gguf": file(credited) } });
  await page.click("#open-about");
  assert.match(await page.locator("#credits").innerText(), /tatoeba\.org[^]*CMU Pronouncing Dictionary/);
  await look(page, "about");
  await loadAddress(page, `${server.url}/credited.gguf`);
  await page.locator("#credits", { hasText: "javascript:alert(1)" }).waitFor();
  const links = await page.locator("#credits a").evaluateAll((all) => all.map((link) => [link.href, link.textContent]));
  assert.deepEqual(links, [
    ["https://creativecommons.org/licenses/by/2.0/", "creativecommons.org/licenses/by/2.0"],
    ["https://tatoeba.org/", "tatoeba.org"],
  ]);
  const text = await page.locator("#credits").innerText();
  assert.match(text, /cc-by-2\.0/);
  assert.match(text, /<b>CMUdict<\/b> and javascript:alert\(1\)/);
  await close();
});

inChromium("a new deployment reaches visitors, also those without a network, and old models go", async () => {
  const next = here("../../target/web-test/demo-next");
  build(model("unigram", "q8_0"), "--outDir", next);
  const script = (folder) => readFileSync(`${folder}/service-worker.js`, "utf8");
  assert.notEqual(script(next), script(here("../demo/dist")));
  const { server, page, close } = await visit();
  await kept(page);
  const state = () =>
    page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const models = [];
      for await (const name of (await root.getDirectoryHandle("pocket-t5")).keys()) models.push(name);
      const names = (await caches.keys()).filter((name) => name.startsWith("pocket-t5 page"));
      return {
        models: models.filter((name) => name.endsWith(".gguf")).length,
        names,
        script: document.querySelector("script").src,
      };
    });
  const before = await state();
  server.deploy("../target/web-test/demo-next");
  await page.reload();
  await ready(page);
  const after = await state();
  assert.notEqual(after.script, before.script);
  assert.equal(before.models, 1);
  // The old model goes once the new one runs.
  await until(async () => (await state()).models === 1, "one model is kept");
  // The new service worker takes over by itself.
  await until(async () => !(await state()).names.includes(before.names[0]), "what the old page kept goes");
  await kept(page);
  assert.equal((await state()).names.length, 1);
  server.close();
  await page.reload();
  await ready(page);
  assert.equal((await state()).script, after.script);
  await close();
});

inChromium("files of a folder become a model that can be saved, and the page follows its tasks", async () => {
  const { server, page, close } = await visit();
  const source = folder("unigram");
  const files = readdirSync(source).map((name) => `${source}/${name}`);
  await openSettings(page);
  const modules = () => server.requests.filter((one) => one.path.endsWith(".wasm")).map((one) => one.path);
  await kept(page);
  const before = modules();
  await page.setInputFiles("#files", files);
  await page.locator("#model-name", { hasText: "Your checkpoint as int8" }).waitFor();
  // The module that converts is another one, which nobody else fetches.
  const further = modules().filter((path) => !before.includes(path));
  assert.equal(further.length, 1, further.join(", "));
  const saving = page.waitForEvent("download");
  await page.click("#save");
  const saved = await (await saving).path();
  assert.deepEqual(readFileSync(saved), readFileSync(model("unigram", "q8_0")));
  await look(page, "dropped");
  // It has no tasks: texts go in as they are.
  await page.click("#close-settings");
  await page.locator("#tab-free[aria-selected=true]").waitFor();
  await page.fill("#source", "a text");
  // It was made at random.
  await page.locator("#note", { hasText: "The model has no answer to this." }).waitFor();
  await look(page, "free");

  // One with both directions of a pair, and a task that the page does not know.
  const config = JSON.parse(readFileSync(`${source}/config.json`, "utf8"));
  const prefix = (prefix) => ({ prefix });
  config.task_specific_params = {
    translation_en_to_de: prefix("translate English to German: "),
    translation_de_to_en: prefix("translate German to English: "),
    translation_fr_to_en: prefix("translate French to English: "),
    summarization: prefix("summarize: "),
  };
  const read = (path) => ({ name: path.split("/").pop(), mimeType: "", buffer: readFileSync(path) });
  const changed = files.map(read).map((one) =>
    one.name === "config.json" ? { ...one, buffer: Buffer.from(JSON.stringify(config)) } : one,
  );
  await page.setInputFiles("#files", changed);
  await page.locator("#tab-translate").waitFor();
  await choose(page, "translate");
  const pair = () => page.evaluate(() => [document.querySelector("#from").value, document.querySelector("#to").value]);
  await page.selectOption("#from", "de");
  assert.deepEqual(await pair(), ["de", "en"]);
  await page.fill("#source", "Wo?");
  await page.click("#swap");
  assert.deepEqual(await pair(), ["en", "de"]);
  assert.equal(await page.getAttribute("#answer", "lang"), "de");
  await page.selectOption("#from", "fr");
  assert.deepEqual(await pair(), ["fr", "en"]);
  assert.equal(await page.isVisible("#swap"), false);
  assert.equal(await page.isVisible("#tab-free"), true);
  await close();
});

inChromium("errors are said in words, as typed, with what to do, and the model that works stays", async () => {
  const { page, server, close } = await visit({ routes: { "/page.gguf": file(Buffer.from("<html>".repeat(10))) } });
  const german = await ask(page, "Where is the station?");
  await openSettings(page);
  for (const [address, expected] of [
    ["missing.gguf", /^“missing\.gguf”.*found HTTP status 404.*Check the address\. Pocket T5 goes on working\.$/],
    [`${server.url}/page.gguf`, /not a GGUF file.*Choose a GGUF file.*goes on working/],
    ["hf:nobody", /^[^/]*hf:owner\/name.*goes on working/i],
  ]) {
    await loadAddress(page, address);
    await page.locator("#model-error", { hasText: expected }).waitFor();
    assert.equal(await page.inputValue("#url"), address);
  }
  await look(page, "error");
  await page.click("#close-settings");
  assert.notEqual(await ask(page, "The cat sleeps."), german);
  // A good one takes the message away.
  await openSettings(page);
  await loadAddress(page, "assets/none.gguf");
  await page.locator("#model-error:visible").waitFor();
  const buffer = readFileSync(model("unigram", "q8_0"));
  await page.setInputFiles("#files", { name: "other.gguf", mimeType: "", buffer });
  await page.locator("#model-name", { hasText: "other.gguf" }).waitFor();
  assert.equal(await page.isVisible("#model-error"), false);
  await page.click("#default");
  await page.locator("#model-name", { hasText: "Pocket T5" }).waitFor();
  await close();
});

inChromium("a model that was lost can be loaded again", async () => {
  const prepare = (page) =>
    page.addInitScript(() => {
      globalThis.workers = [];
      globalThis.Worker = class extends Worker {
        constructor(...given) {
          super(...given);
          workers.push(this);
        }
      };
    });
  const { page, close } = await visit({ prepare });
  await ask(page, "Where is the station?");
  await page.evaluate(() => workers.forEach((worker) => worker.terminate()));
  await page.fill("#source", "The cat sleeps.");
  await page.locator("#error button").waitFor();
  await look(page, "lost");
  await page.click("#error button");
  await page.locator("#error").waitFor({ state: "hidden" });
  await until(async () => (await page.locator("#answer").innerText()) === "Die Katze schläft.", "the answer");
  await close();
});

/** A host that falls silent amid a model. */
const stalls = (_request, response) => {
  response.writeHead(200, { "content-length": 10_000_000, etag: '"1"' });
  response.write(Buffer.alloc(4_000_000, "GGUF"));
};
const HALF = /[34](\.\d)? MB of (10|10\.0) MB, [\d.]+ [kM]B a second$/;

inChromium("another model's slow download shows its progress beside the one that works, and stops", async () => {
  const { page, server, close } = await visit({ routes: { "/slow.gguf": stalls } });
  await openSettings(page);
  await loadAddress(page, `${server.url}/slow.gguf`);
  await page.locator("#loading-text", { hasText: HALF }).waitFor();
  await look(page, "another");
  await page.click("#close-settings");
  assert.match(await page.textContent("#busy"), /^Loading (3\d|40) %$/);
  await ask(page, "Where is the station?");
  await look(page, "busy");
  await page.click("#busy");
  await page.click("#loading-cancel");
  await page.locator("#loading").waitFor({ state: "hidden" });
  assert.equal(await page.isVisible("#model-error"), false);
  await close();
});

inChromium("the first download shows its progress, can wait, and is taken up again", async () => {
  const name = readdirSync(here("../demo/dist/assets")).find((name) => name.endsWith(".gguf"));
  const whole = file(pocket.path);
  let slow = true;
  const routes = { [`/assets/${name}`]: (...all) => (slow ? stalls(...all) : whole(...all)) };
  const { page, close } = await visit({ routes, wait: false });
  // The text can be written meanwhile.
  await page.fill("#source", "Where is the station?");
  await page.locator("#progress-text", { hasText: HALF }).waitFor();
  assert.match(await page.textContent("#getting-title"), /^Getting the translator$/);
  await page.waitForTimeout(600);
  await look(page, "first-download");
  await page.click("#cancel");
  await page.locator("#get", { hasText: "Get it (10.5 MB)" }).waitFor();
  await look(page, "not-now");
  slow = false;
  await page.click("#get");
  await ready(page);
  assert.equal(await answer(page), "Wo ist der Bahnhof?");
  await close();
});

inChromium("a first visit without the model says so, and can try again", async () => {
  const name = readdirSync(here("../demo/dist/assets")).find((name) => name.endsWith(".gguf"));
  const whole = file(pocket.path);
  let there = false;
  const routes = { [`/assets/${name}`]: (request, response, count) =>
    there ? whole(request, response, count) : response.writeHead(404).end() };
  const { page, close } = await visit({ routes, wait: false });
  await page.locator("#get", { hasText: "Try again" }).waitFor();
  assert.match(await page.textContent("#progress-text"), /^http:.*found HTTP status 404\. Try again later\.$/);
  await look(page, "not-had");
  there = true;
  await page.click("#get");
  await ready(page);
  await close();
});
