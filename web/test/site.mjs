// A server for pages under test: the package's files, models that can be asked to misbehave, and a record of requests.

import { createServer } from "node:http";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/**
 * Serves the folder `base` of the package. `isolated` sends COOP and COEP. `routes` are functions of request, response
 * and how often the path was asked for, by path. `folders` are other folders, by how their paths begin.
 */
export async function site({ base = ".", isolated = false, routes = {}, folders = {} } = {}) {
  const requests = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    requests.push({ path, range: request.headers.range });
    if (isolated) {
      response.setHeader("cross-origin-opener-policy", "same-origin");
      response.setHeader("cross-origin-embedder-policy", "require-corp");
    }
    const count = requests.filter((one) => one.path === path).length;
    if (routes[path]) return routes[path](request, response, count);
    if (path === "/empty.html") {
      response.setHeader("content-type", "text/html");
      return response.end('<!doctype html><html lang="en"><title>Test</title><link rel="icon" href="data:,">');
    }
    const other = Object.keys(folders).find((start) => path.startsWith(start));
    const file = other
      ? join(folders[other], normalize(path.slice(other.length)))
      : join(root, base, normalize(path.endsWith("/") ? `${path}index.html` : path));
    if (!existsSync(file) || !statSync(file).isFile()) return response.writeHead(404).end();
    response.setHeader("content-type", TYPES[extname(file)] ?? "application/octet-stream");
    response.setHeader("content-length", statSync(file).size);
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  // A test that failed does not keep the program.
  server.unref();
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    asked: (path) => requests.filter((one) => one.path === path).length,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Answers as a host of files does: whole or from a byte on, with a strong version. */
export function file(path, { stopAfter = () => Infinity, etag = '"1"' } = {}) {
  const bytes = typeof path === "string" ? readFileSync(path) : path;
  return (request, response, count) => {
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    const from = asked && (request.headers["if-range"] ?? etag) === etag ? Number(asked[1]) : 0;
    const head = { "content-length": bytes.length - from, etag, "accept-ranges": "bytes" };
    if (from > 0) head["content-range"] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from > 0 ? 206 : 200, head);
    const until = from + stopAfter(count);
    if (until >= bytes.length) return response.end(bytes.subarray(from));
    response.write(bytes.subarray(from, until), () => setTimeout(() => response.destroy(), 100));
  };
}
