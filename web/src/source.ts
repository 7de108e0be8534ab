// From a source to a stream of bytes of known size.

import { aborted, T5Error, throwIfAborted } from "./errors.js";
import { inNode, nodeModule } from "./platform.js";
import type { Source } from "./types.js";

/** A file about to be read, front to back, once. */
export interface OpenFile {
  name: string;
  size: number;
  /** The server's version of the file, where it names one. */
  version: string | null;
  /** Bytes at the front that were here already. */
  resumed: number;
  /** The whole file. */
  chunks(): AsyncIterable<Uint8Array>;
}

/** The beginning of a file, from a transfer that broke off. */
export interface Beginning {
  file: Blob;
  version: string | null;
}

export interface SourceOptions {
  endpoint?: string;
  signal?: AbortSignal;
  have?: Beginning | undefined;
}

/** How often a transfer is taken up again without a byte more having come. */
const ATTEMPTS = 4;
/** Wait before the second attempt; twice as long before each further one. */
const FIRST_WAIT_MS = 250;

export async function open(source: Source, options: SourceOptions): Promise<OpenFile> {
  if (source instanceof ArrayBuffer || source instanceof Uint8Array) {
    const bytes = source instanceof Uint8Array ? source : new Uint8Array(source);
    return {
      name: "model",
      size: bytes.length,
      version: null,
      resumed: 0,
      async *chunks() {
        yield bytes;
      },
    };
  }
  if (source instanceof Blob) return openBlob(source, "name" in source ? String(source.name) : "model");
  const text = String(source);
  if (text.startsWith("hf:")) return openUrl(await resolveHub(text, options), options);
  if (inNode && !/^(https?|blob|data):/.test(text)) return openPath(text);
  return openUrl(text, options);
}

export function openBlob(blob: Blob, name: string): OpenFile {
  return { name, size: blob.size, version: null, resumed: 0, chunks: () => read(blob.stream()) };
}

async function openPath(path: string): Promise<OpenFile> {
  const fs = await nodeModule<typeof import("node:fs")>("fs");
  const file = path.startsWith("file:") ? new URL(path) : path;
  let size: number;
  try {
    size = fs.statSync(file).size;
  } catch (error) {
    throw new T5Error("not-found", (error as Error).message);
  }
  return { name: path, size, version: null, resumed: 0, chunks: () => fs.createReadStream(file, { highWaterMark: 1 << 20 }) };
}

async function openUrl(url: string, { signal, have }: SourceOptions): Promise<OpenFile> {
  const wanted = have && have.file.size > 0 && isStrong(have.version) ? have : undefined;
  const headers = wanted ? rangeFrom(wanted.file.size, wanted.version) : new Headers();
  const response = await request(url, headers, signal);
  // The name only, not what a long address asks for.
  const name = new URL(response.url || url, "http://localhost").pathname.split("/").pop() || url;
  const version = versionOf(response);
  if (wanted && response.status === 206) {
    const size = Number(/^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1] ?? 0);
    const start = wanted.file.size;
    if (size > start) {
      const chunks = async function* (): AsyncGenerator<Uint8Array> {
        yield* read(wanted.file.stream());
        yield* transfer(url, response, start, size, version, signal);
      };
      return { name, size, version, resumed: start, chunks };
    }
    await response.body?.cancel();
    return openUrl(url, { ...(signal && { signal }) });
  }
  const size = Number(response.headers.get("content-length") ?? 0);
  if (size === 0 || response.headers.has("content-encoding")) {
    // The size of what will arrive is not known: it must arrive first.
    return openBlob(await response.blob(), name);
  }
  return { name, size, version, resumed: 0, chunks: () => transfer(url, response, 0, size, version, signal) };
}

function versionOf(response: Response): string | null {
  return response.headers.get("etag") ?? response.headers.get("last-modified");
}

/** A weak tag does not promise the same bytes, and servers refuse it in If-Range. */
function isStrong(version: string | null): version is string {
  return version !== null && !version.startsWith("W/");
}

function rangeFrom(start: number, version: string | null): Headers {
  const headers = new Headers({ range: `bytes=${start}-` });
  if (isStrong(version)) headers.set("if-range", version);
  return headers;
}

/** The chunks of a response from byte `start` on; where it breaks off, of another one that goes on from there. */
async function* transfer(
  url: string,
  first: Response,
  start: number,
  size: number,
  version: string | null,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let response: Response | undefined = first;
  let received = start;
  let failures = 0;
  while (received < size) {
    throwIfAborted(signal);
    try {
      if (!response) {
        await pause(FIRST_WAIT_MS * 2 ** (failures - 1), signal);
        response = await request(url, rangeFrom(received, version), signal);
      }
      // A server that cannot go on, or whose file has changed, sends the whole file.
      let skip = response.status === 206 ? 0 : received;
      if (response.status === 206 && !response.headers.get("content-range")?.startsWith(`bytes ${received}-`)) {
        throw new T5Error("network", `${url}: expected the file from byte ${received} on, found another part`);
      }
      if (skip > 0 && version !== versionOf(response)) {
        throw new T5Error("network", `${url}: the file changed during the transfer`);
      }
      for await (const chunk of read(response.body)) {
        throwIfAborted(signal);
        const rest = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - rest.length;
        if (rest.length === 0) continue;
        received += rest.length;
        failures = 0;
        yield rest;
      }
      if (received < size) throw new TypeError(`the connection ended after ${received} of ${size} bytes`);
    } catch (error) {
      if (signal?.aborted) throw aborted();
      if (error instanceof T5Error) throw error;
      failures += 1;
      response = undefined;
      if (failures >= ATTEMPTS) {
        const reason = `${(error as Error).message}, ${received} of ${size} bytes arrived`;
        throw new T5Error("network", `${url}: ${reason}, ${ATTEMPTS} attempts`);
      }
    }
  }
}

/** A stream's chunks. Not every browser can iterate over a stream itself. */
async function* read(stream: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (!stream) return;
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    // Where the consumer stopped, the transfer stops too.
    reader.cancel().catch(() => {});
  }
}

/** A successful response. */
async function request(url: string, headers: Headers, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { headers, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw aborted();
    throw headers.has("range") ? error : new T5Error("network", `${url}: ${(error as Error).message}`);
  }
  if (response.ok) return response;
  await response.body?.cancel();
  const what = `${url}: expected a file, found HTTP status ${response.status}`;
  if (response.status >= 500 && headers.has("range")) throw new TypeError(what);
  throw new T5Error(response.status === 404 || response.status === 410 ? "not-found" : "network", what);
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(aborted());
      },
      { once: true },
    );
  });
}

/** The address of `hf:owner/name[/file.gguf][@revision]`; without a file, of the repository's Q8_0 or only file. */
export async function resolveHub(name: string, options: SourceOptions): Promise<string> {
  const parts = /^hf:([\w.-]+\/[\w.-]+?)(?:\/([^@]+))?(?:@([^@]+))?$/.exec(name);
  if (!parts) {
    throw new T5Error("bad-option", `expected hf:owner/name[/file.gguf][@revision], found ${name}`);
  }
  const [, repository, file, revision = "main"] = parts;
  const endpoint = (options.endpoint ?? "https://huggingface.co").replace(/\/$/, "");
  const resolve = (path: string): string =>
    `${endpoint}/${repository}/resolve/${encodeURIComponent(revision)}/${path.split("/").map(encodeURIComponent).join("/")}`;
  if (file) return resolve(file);
  const api = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
  const response = await request(api, new Headers(), options.signal);
  const { siblings = [] } = (await response.json()) as { siblings?: { rfilename: string }[] };
  const files = siblings.map((sibling) => sibling.rfilename).filter((path) => path.endsWith(".gguf"));
  const chosen = files.find((path) => /q8_0/i.test(path)) ?? (files.length === 1 ? files[0] : undefined);
  if (chosen) return resolve(chosen);
  const found = files.length === 0 ? "no .gguf file" : `${files.join(", ")}: name one of them`;
  throw new T5Error("not-found", `hf:${repository}: expected a Q8_0 GGUF file, found ${found}`);
}
