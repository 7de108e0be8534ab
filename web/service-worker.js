// A service worker for pages on hosts that cannot be configured. It gives two things, each asked for in its address:
//
//   isolate=1      answers carry COOP and COEP, so that the page is cross-origin isolated and threads can be used
//   files=URL      a JSON list of addresses that are kept, so that the page opens without the network
//   immutable=URL  a folder whose files never change, as where names have a hash: kept ones are used without asking
//   version=TEXT   another text for another list: what was kept before is replaced
//
// Copy it beside the page and call `registerServiceWorker`. Models are not kept here: the package stores them itself.
// A classic script, since not every browser runs service workers that are modules.

/** A build may write a hash of its files here: browsers look for a new service worker by comparing its bytes. */
const BUILT = "";

const asked = new URL(self.location.href).searchParams;
const isolate = asked.get("isolate") === "1";
const files = asked.get("files");
const immutable = asked.has("immutable") ? new URL(asked.get("immutable"), self.registration.scope).href : undefined;
/** One for each place where a page lies, and each version of it; other caches of the origin are left alone. */
const PLACE = `pocket-t5 page: ${self.registration.scope}`;
const CACHE = `${PLACE}, ${BUILT}${asked.get("version") ?? ""}`;

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
  // Files that only some visitors need, such as the module that runs: kept once they are used.
  if (files && Array.isArray(event.data?.keep)) event.waitUntil(keep(event.data.keep));
});
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || request.headers.has("range")) return;
  // Chromium asks so for what only its own cache may answer.
  if (request.cache === "only-if-cached" && request.mode !== "same-origin") return;
  event.respondWith(answer(request));
});

async function install() {
  if (files) {
    const list = new URL(files, self.registration.scope);
    const names = await (await fetch(list, { cache: "no-cache" })).json();
    const addresses = names.map((name) => new URL(name, list).href);
    const cache = await caches.open(CACHE);
    await cache.addAll(addresses.map((address) => new Request(address, { cache: "no-cache" })));
    // Where the version says nothing, the list does.
    for (const { url } of await cache.keys()) if (!addresses.includes(url)) await cache.delete(url);
  }
  await self.skipWaiting();
}

/** What earlier versions of the page kept goes. */
async function activate() {
  // The first service worker of this package had one cache for all versions.
  const earlier = (name) => name === PLACE || (name.startsWith(`${PLACE}, `) && name !== CACHE);
  for (const name of await caches.keys()) if (earlier(name)) await caches.delete(name);
  await self.clients.claim();
}

async function keep(addresses) {
  const cache = await caches.open(CACHE);
  for (const address of addresses) {
    const url = new URL(address, self.registration.scope);
    if (url.origin !== self.location.origin || (await cache.match(url))) continue;
    // The page has just fetched it.
    const response = await fetch(url, { cache: "force-cache" }).catch(() => undefined);
    if (response?.ok) await cache.put(url, response);
  }
}

/** The network's answer; without the network, or where it can only be the same, the kept one. */
async function answer(request) {
  if (immutable && request.url.startsWith(immutable)) {
    const same = await kept(request);
    if (same) return isolated(same);
  }
  try {
    return isolated(await fetch(request));
  } catch (error) {
    const before = await kept(request);
    if (before) return isolated(before);
    throw error;
  }
}

async function kept(request) {
  return files ? (await caches.open(CACHE)).match(request, { ignoreSearch: true }) : undefined;
}

function isolated(response) {
  if (!isolate || response.status === 0 || response.type === "opaqueredirect") return response;
  const headers = new Headers(response.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "cross-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
