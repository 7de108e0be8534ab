// A server for pages under test: the package's files, models that can be asked to misbehave, and a record of requests.

import { createServer } from "node:http";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const root = fileURLToPath(new URL("..", import.meta.url));

export const TYPES = {
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
  let place = base;
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    requests.push({ path, method: request.method, range: request.headers.range, headers: request.headers });
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
      : join(root, place, normalize(path.endsWith("/") ? `${path}index.html` : path));
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
    /** Serves another folder from now on, as after a deployment. */
    deploy: (base) => void (place = base),
    asked: (path) => requests.filter((one) => one.path === path).length,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/**
 * Answers as a host of files does: whole or from a byte on, 416 behind the end, with a strong version.
 *
 * `stopAfter` bytes the connection breaks (a function of how often it was asked); `hang` bytes after the first one it
 * falls silent. `ranges: false` sends the whole file always. `cors` allows other origins, with `expose` the headers
 * they may read; a preflight is refused, as by most hosts. `gzip` compresses, and says so only to its own origin.
 * `change` alters the head of an answer.
 */
export function file(path, options = {}) {
  const {
    stopAfter = () => Infinity,
    hang = Infinity,
    etag = '"1"',
    ranges = true,
    cors,
    expose = [],
    gzip,
    change,
  } = options;
  const bytes = typeof path === "string" ? readFileSync(path) : path;
  const packed = gzip ? gzipSync(bytes) : bytes;
  return (request, response, count) => {
    if (cors) response.setHeader("access-control-allow-origin", "*");
    if (expose.length > 0) response.setHeader("access-control-expose-headers", expose.join(", "));
    if (request.method === "OPTIONS") return response.writeHead(403).end();
    const asked = ranges ? /^bytes=(\d+)-$/.exec(request.headers.range ?? "") : null;
    const from = asked && (request.headers["if-range"] ?? etag) === etag ? Number(asked[1]) : 0;
    if (from >= bytes.length) return response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
    // As servers do: a part is never compressed.
    const body = asked ? bytes : packed;
    const head = { "content-length": body.length - from, "accept-ranges": ranges ? "bytes" : "none" };
    if (etag) head.etag = etag;
    if (gzip && !asked) head["content-encoding"] = "gzip";
    if (asked && from > 0) head["content-range"] = `bytes ${from}-${body.length - 1}/${body.length}`;
    const status = asked && from > 0 ? 206 : 200;
    response.writeHead(status, change?.(head, status, count) ?? head);
    const until = from + Math.min(stopAfter(count), count === 1 ? hang : Infinity);
    if (until >= body.length) return response.end(body.subarray(from));
    const stop = until - from < hang || count > 1 ? () => setTimeout(() => response.destroy(), 100) : () => {};
    response.write(body.subarray(from, until), stop);
  };
}
