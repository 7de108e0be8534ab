// Makes the pictures in public/ anew, from icon.svg and the colours of the page: node demo/pictures.mjs

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { launch } from "../test/chromium.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const icon = readFileSync(here("public/icon.svg"), "utf8");

/** A page of this size with this content, as a picture. */
async function picture(browser, name, width, height, body, transparent = true) {
  const page = await browser.newPage({ viewport: { width, height } });
  await page.setContent(`<style>*{box-sizing:border-box}body{margin:0}svg{display:block}</style>${body}`);
  writeFileSync(here(`public/${name}`), await page.screenshot({ omitBackground: transparent }));
  await page.close();
}

const sized = (size, svg = icon) => svg.replace("<svg ", `<svg width="${size}" height="${size}" `);
// Of a maskable icon only the inner 80 % are sure to be seen, and its ground fills the square.
const maskable = `<div style="background:#0f5f63;padding:51px">${sized(410, icon.replace(/rx="112"/, 'rx="0"'))}</div>`;
const preview = `
  <div class="preview">
    <div style="display:flex;align-items:center;gap:24px;font-size:40px;font-weight:600">${sized(72)}Pocket T5</div>
    <p style="margin:72px 0 0">Where is the <mark>station</mark>?</p>
    <p style="margin:16px 0 0;color:#0f5f63">Wo ist der <mark>Bahnhof</mark>?</p>
    <p style="margin:72px 0 0;font-size:34px;color:#5a656b">A translator that stays on your device.</p>
  </div>
  <style>
    .preview{width:1200px;height:630px;background:#f5f4ef;color:#1c2327;padding:84px}
    .preview{font:64px/1.35 system-ui,sans-serif}
    mark{background:#ffdf8e;color:inherit;border-radius:12px;padding:0 10px;margin:0 -10px}
  </style>`;

const browser = await launch();
await picture(browser, "icon-192.png", 192, 192, sized(192));
await picture(browser, "icon-512.png", 512, 512, sized(512));
await picture(browser, "icon-maskable.png", 512, 512, maskable, false);
await picture(browser, "preview.png", 1200, 630, preview, false);
await browser.close();
