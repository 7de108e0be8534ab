// Firefox over WebDriver BiDi: https://w3c.github.io/webdriver-bidi/

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WebSocket } from "ws";

const path = [process.env.FIREFOX, "/usr/bin/firefox-esr", "/usr/bin/firefox"].find((path) => path && existsSync(path));

/** Why there is no browser; undefined if there is one. */
export const missing = path ? undefined : "no Firefox: apt-get install firefox-esr, or set FIREFOX to its path";

/** How long anything may take that happens sooner or later. */
const PATIENCE_MS = 120_000;

/** A browser without a window, with a fresh profile and one tab. */
export async function launch() {
  const profile = mkdtempSync(join(tmpdir(), "pocket-t5-firefox-"));
  // Port 0: any that is free.
  const options = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"];
  const browser = spawn(path, options, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  const address = await new Promise((resolve, reject) => {
    let log = "";
    browser.stderr.on("data", (text) => {
      log += text;
      const found = /WebDriver BiDi listening on (ws:\/\/\S+)/.exec(log);
      if (found) resolve(found[1]);
    });
    ended.then(() => reject(new Error(`Firefox ended: ${log}`)));
  });
  const socket = new WebSocket(`${address}/session`);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const waiting = new Map();
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    const request = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.type === "success") request?.resolve(message.result);
    else request?.reject(new Error(`${message.error}: ${message.message}`));
  });
  let last = 0;
  const call = (method, params) =>
    new Promise((resolve, reject) => {
      const late = () => reject(new Error(`expected an answer to ${method}, found none after ${PATIENCE_MS / 1000} s`));
      const timer = setTimeout(late, PATIENCE_MS);
      const answered = (then) => (value) => (clearTimeout(timer), then(value));
      waiting.set(++last, { resolve: answered(resolve), reject: answered(reject) });
      socket.send(JSON.stringify({ id: last, method, params }));
    });

  const { capabilities } = await call("session.new", { capabilities: {} });
  const { contexts } = await call("browsingContext.getTree", {});
  const { context } = contexts[0];

  /** Calls an asynchronous function in the page; what goes in and out is JSON. */
  const evaluate = async (run, argument) => {
    const given = argument === undefined ? "" : JSON.stringify(argument);
    const expression = `Promise.resolve((${run})(${given})).then((value) => JSON.stringify(value) ?? "null")`;
    const answer = await call("script.evaluate", { expression, target: { context }, awaitPromise: true });
    if (answer.type !== "success") throw new Error(answer.exceptionDetails.text);
    return JSON.parse(answer.result.value);
  };
  return {
    version: capabilities.browserVersion,
    evaluate,
    goto: (url) => call("browsingContext.navigate", { context, url, wait: "complete" }),
    reload: () => call("browsingContext.reload", { context, wait: "complete" }),
    /** Waits until a function in the page gives true. */
    async until(run, argument) {
      const end = Date.now() + PATIENCE_MS;
      while (!(await evaluate(run, argument))) {
        if (Date.now() > end) throw new Error(`expected to come true: ${run}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async close() {
      await call("browser.close", {}).catch(() => {});
      socket.close();
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5000))]);
      if (browser.exitCode === null) browser.kill();
      await ended;
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
