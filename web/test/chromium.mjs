// The browser that tests drive: Debian's, or the one that CHROMIUM names.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const path = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);

/** Why there is no browser; undefined if there is one. */
export const missing = path ? undefined : "no Chromium: apt-get install chromium, or set CHROMIUM to its path";

/** A browser without a window. */
export function launch() {
  // In containers its own sandbox cannot be set up; the pages are this folder's.
  return chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}
