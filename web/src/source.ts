// Opens a model's source as a stream of bytes of known size.

import { aborted, T5Error, throwIfAborted } from "./errors.js";
import type { Fetch } from "./fetch.js";
import { inNode, nodeModule } from "./platform.js";
import type { LoadRequest } from "./protocol.js";

/** Where `hf:` names are looked up by default. */
export const HUB = "https://huggingface.co";

/** A hub's address, however its end is written. */
export const hubAt = (endpoint: string): string => endpoint.replace(/\/$/, "");

/** A file that is about to be read once, front to back. */
export interface OpenFile {
  name: string;
  size: number;
  /** The server's version of the file, where it names one. */
  version: string | null;
  /** How many bytes at its beginning were already on the device. */
  resumed: number;
  /** The whole file. */
  chunks(): AsyncIterable<Uint8Array>;
  /** Whether, if the file seems damaged, the announced size may have been wrong instead: see `StartAgain`. */
  doubtful?(): boolean;
}

/** The beginning of a file, kept from an interrupted transfer. */
export interface Beginning {
  file: Blob;
  size: number;
  version: string | null;
}

export interface SourceOptions {
  /** The `fetch` to use; the worker's own by default. */
  ask?: Fetch | undefined;
  endpoint?: string | undefined;
  signal?: AbortSignal | undefined;
  have?: Beginning | undefined;
  /** How long a server may send nothing, in milliseconds. */
  stallMs?: number | undefined;
  /** False: do not trust the announced size, but collect the whole file before using it. */
  sized?: boolean | undefined;
  /** Called with the bytes received so far while the file's size is unknown. */
  collected?: ((bytes: number) => void) | undefined;
}

/** A transfer that cannot be resumed; it may still succeed from the first byte. */
export class StartAgain extends T5Error {
  constructor(
    message: string,
    /** False if the announced size is not the file's, because the server compressed it without saying so. */
    readonly sized = true,
  ) {
    super("network", message);
  }
}

/** How many attempts in a row may fail without receiving anything new. */
export const ATTEMPTS = 4;

/** Calls `use` anew where a transfer must start again; its argument is false once sizes cannot be trusted. */
export async function startingAgain<T>(use: (sized: boolean) => Promise<T>): Promise<T> {
  let sized = true;
  for (let attempt = 1; ; attempt++) {
    try {
      return await use(sized);
    } catch (error) {
      if (!(error instanceof StartAgain) || attempt >= ATTEMPTS) throw error;
      sized &&= error.sized;
    }
  }
}

/** Wait before the second attempt, doubled for each further one. */
const FIRST_WAIT_MS = 250;
/** If a server asks to wait longer than this, the transfer fails. */
const LONGEST_WAIT_MS = 30_000;
/** See `LoadOptions.stallMs`. */
const STALL_MS = 30_000;
/** Statuses that are worth a retry. */
const BUSY = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Opens a source. For a hub's repository without a GGUF file, returns the addresses of the checkpoint's files. */
export async function open(
  source: LoadRequest["source"],
  options: SourceOptions,
): Promise<OpenFile | CheckpointFile[]> {
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
  if (source.startsWith("folder:")) {
    const what = "expected a folder that is kept here, found none that fits: give its files again";
    throw new T5Error("not-found", `${source}: ${what}`);
  }
  if (source.startsWith("hf:")) {
    const found = await resolveHub(source, options);
    return typeof found === "string" ? openUrl(found, options) : found;
  }
  return openAddress(source, options);
}

/** Opens an address, or in Node a path. */
export async function openAddress(source: string, options: SourceOptions): Promise<OpenFile> {
  if (inNode && !/^(https?|blob|data):/.test(source)) return openPath(source);
  return openUrl(source, options);
}

/** A file of a checkpoint, by its name in the folder. */
export interface CheckpointFile {
  name: string;
  url: string;
}

export function openBlob(blob: Blob, name: string): OpenFile {
  return { name, size: blob.size, version: null, resumed: 0, chunks: () => read(blob.stream()) };
}

async function openPath(path: string): Promise<OpenFile> {
  const fs = await nodeModule<typeof import("node:fs")>("fs");
  const file = path.startsWith("file:") ? new URL(path) : path;
  let size: number;
  try {
    const stat = fs.statSync(file);
    if (!stat.isFile()) throw new T5Error("bad-model", `${path}: expected a file, found something else`);
    size = stat.size;
  } catch (error) {
    throw error instanceof T5Error ? error : new T5Error("not-found", (error as Error).message);
  }
  return {
    name: path,
    size,
    version: null,
    resumed: 0,
    chunks: () => fs.createReadStream(file, { highWaterMark: 1 << 20 }),
  };
}

async function openUrl(url: string, options: SourceOptions): Promise<OpenFile> {
  const { have } = options;
  // Without the query, and from the address that was asked for rather than one it redirects to.
  const name = new URL(url, "http://localhost").pathname.split("/").pop() || url;
  let answer: Answer | undefined;
  if (have && have.file.size > 0 && have.file.size < have.size && isStrong(have.version)) {
    const start = have.file.size;
    const further = (): Promise<Answer | undefined> => rest(url, start, have.size, have.version, options);
    answer = await patiently(options.signal, further).catch((error: unknown) => {
      throwIfAborted(options.signal);
      // A server that refuses the range (416), or fails at it every time, may still send the whole file.
      if (error instanceof Refused && error.code !== "not-found") return undefined;
      throw error;
    });
    if (answer && answer.start > 0) {
      const { size, version } = have;
      const second = answer;
      const chunks = async function* (): AsyncGenerator<Uint8Array> {
        yield* read(have.file.stream());
        yield* transfer(url, second, start, size, version, options);
      };
      return { name, size, version, resumed: start, chunks };
    }
  }
  answer ??= await patiently(options.signal, () => request(url, options));
  const { response } = answer;
  const version = versionOf(response);
  const size = Number(response.headers.get("content-length") ?? 0);
  if (options.sized === false || size === 0 || response.headers.has("content-encoding")) {
    return openBlob(await collect(url, answer, options), name);
  }
  let magic = "";
  const first = answer;
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of transfer(url, first, 0, size, version, options)) {
      if (magic.length < 4) magic += String.fromCharCode(...chunk.subarray(0, 4 - magic.length));
      yield chunk;
    }
  };
  // Across origins the length is visible but not whether the body is compressed.
  const doubtful = (): boolean => response.type === "cors" && magic === "GGUF";
  return { name, size, version, resumed: 0, chunks, doubtful };
}

/** Downloads a whole file whose size is unknown. */
async function collect(url: string, first: Answer, options: SourceOptions): Promise<Blob> {
  const parts: BlobPart[] = [];
  let size = 0;
  try {
    for await (const chunk of read(first.response.body, options, first)) {
      // Copies, which the browser may keep on disk.
      parts.push(new Blob([chunk as Uint8Array<ArrayBuffer>]));
      options.collected?.((size += chunk.length));
    }
  } catch (error) {
    throwIfAborted(options.signal);
    throw new StartAgain(`${url}: ${(error as Error).message}, ${size} bytes arrived`);
  }
  return new Blob(parts);
}

function versionOf(response: Response): string | null {
  return response.headers.get("etag") ?? response.headers.get("last-modified");
}

/** A weak tag does not promise the same bytes. */
function isStrong(version: string | null): version is string {
  return version !== null && !version.startsWith("W/");
}

/**
 * Requests the part of a file after its first `start` bytes. The answer starts at 0 if the server sends the whole file
 * instead; it is undefined if it does not fit the part already received.
 *
 * No `If-Range` is sent, since many hosts do not allow that header across origins. The answer's version is compared
 * instead.
 */
async function rest(
  url: string,
  start: number,
  size: number,
  version: string | null,
  options: SourceOptions,
): Promise<Answer | undefined> {
  const answer = await request(url, options, start).catch((error: unknown) => {
    // Older browsers send a preflight for ranges, which the host may have refused.
    if (options.signal?.aborted || start === 0 || error instanceof Refused) throw error;
    return request(url, options);
  });
  const { status, headers } = answer.response;
  if (status !== 206) return answer;
  // Hidden by some hosts across origins; then the part is unknown.
  const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get("content-range") ?? "");
  const [from, to, all] = (range?.slice(1) ?? []).map(Number);
  if (
    from === start &&
    to === size - 1 &&
    all === size &&
    isStrong(version) &&
    version === versionOf(answer.response)
  ) {
    return answer;
  }
  answer.end();
  return undefined;
}

/** The chunks from byte `start` on. When the connection breaks, a further request continues from there. */
async function* transfer(
  url: string,
  first: Answer,
  start: number,
  size: number,
  version: string | null,
  options: SourceOptions,
): AsyncGenerator<Uint8Array> {
  const { signal } = options;
  let answer: Answer | undefined = first;
  let received = start;
  let failures = 0;
  let wait = 0;
  while (received < size) {
    throwIfAborted(signal);
    try {
      if (!answer) {
        await pause(Math.max(FIRST_WAIT_MS * 2 ** (failures - 1), wait), signal);
        answer = await rest(url, received, size, version, options);
        if (!answer) throw new StartAgain(`${url}: the server cannot go on, or its file changed`);
        // If the server sends the whole file again, the bytes already received are skipped, if it is the same file.
        const { response } = answer;
        const same = received === 0 || (isStrong(version) && version === versionOf(response));
        if (response.status !== 206 && !(same && Number(response.headers.get("content-length")) === size)) {
          answer.end();
          throw new StartAgain(`${url}: the file changed during the transfer, or may have`);
        }
      }
      let skip = received - answer.start;
      for await (const chunk of read(answer.response.body, options, answer)) {
        throwIfAborted(signal);
        const further = chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - further.length;
        if (further.length === 0) continue;
        received += further.length;
        if (received > size) throw new StartAgain(`${url}: expected ${size} bytes, found more`, false);
        failures = 0;
        yield further;
      }
      if (received < size) throw new TypeError(`the connection ended after ${received} of ${size} bytes`);
    } catch (error) {
      if (signal?.aborted) throw aborted();
      if (error instanceof StartAgain) throw error;
      if (error instanceof Refused && !error.busy) {
        // The range was refused, not the file.
        throw received === 0 || error.code === "not-found" ? error : new StartAgain(error.message);
      }
      failures += 1;
      wait = error instanceof Refused ? error.waitMs : 0;
      answer = undefined;
      if (failures >= ATTEMPTS) {
        const reason = error instanceof T5Error ? error.message : `${url}: ${(error as Error).message}`;
        throw new T5Error("network", `${reason}, ${received} of ${size} bytes arrived, ${ATTEMPTS} attempts`);
      }
    }
  }
}

/** The beginning of an answer, and how to end it. */
interface Answer {
  response: Response;
  /** Where in the file its body starts. */
  start: number;
  end(): void;
}

/** A stream's chunks. Not every browser can iterate over a stream itself. */
async function* read(
  stream: ReadableStream<Uint8Array> | null,
  options: SourceOptions = {},
  answer?: Answer,
): AsyncGenerator<Uint8Array> {
  if (!stream) return;
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await (answer ? within(reader.read(), options) : reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    // Where the consumer stopped, the transfer stops too.
    reader.cancel().catch(() => {});
    answer?.end();
  }
}

/** A server that sends nothing. */
class Silence extends TypeError {}

/** Waits for the promise, but no longer than `stallMs`. */
async function within<T>(promise: Promise<T>, { stallMs = STALL_MS }: SourceOptions): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Silence(`nothing came for ${stallMs / 1000} s`)), stallMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** An HTTP status that is not a file, or no answer in time. */
class Refused extends T5Error {
  constructor(
    code: "network" | "not-found",
    message: string,
    /** Whether a retry may succeed. */
    readonly busy: boolean,
    /** How long the server asks to wait, in milliseconds. */
    readonly waitMs: number,
  ) {
    super(code, message);
  }
}

/** Requests a file, or its part from byte `start` on, once. */
async function request(url: string, options: SourceOptions, start = 0): Promise<Answer> {
  const { signal } = options;
  throwIfAborted(signal);
  const own = new AbortController();
  const end = (): void => {
    signal?.removeEventListener("abort", end);
    own.abort();
  };
  signal?.addEventListener("abort", end);
  const headers = new Headers(start > 0 ? { range: `bytes=${start}-` } : {});
  let response: Response;
  try {
    // A cached part could make the browser turn a later request for the whole file into one for the rest.
    const cache = start > 0 ? "no-store" : "default";
    const ask: Fetch = options.ask ?? ((url, init) => fetch(url, init));
    response = await within(ask(url, { headers, signal: own.signal, cache }), options);
  } catch (error) {
    end();
    if (signal?.aborted) throw aborted();
    const what = `${url}: ${reasonOf(error)}`;
    throw error instanceof Silence ? new Refused("network", what, true, 0) : new T5Error("network", what);
  }
  if (response.ok) return { response, start: response.status === 206 ? start : 0, end };
  const wait = waitOf(response);
  end();
  const code = response.status === 404 || response.status === 410 ? "not-found" : "network";
  const what = `${url}: expected a file, found HTTP status ${response.status}`;
  throw new Refused(code, what, BUSY.has(response.status) && wait <= LONGEST_WAIT_MS, wait);
}

/** The reason of a failed fetch. In Node the message only says that it failed; the cause says why. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message ? `${message}: ${cause.message}` : message;
}

/** What `Retry-After` asks for, in milliseconds. */
function waitOf(response: Response): number {
  const asked = response.headers.get("retry-after");
  if (asked === null) return 0;
  const seconds = /^\d+$/.test(asked) ? Number(asked) * 1000 : Date.parse(asked) - Date.now();
  return Math.max(0, seconds || 0);
}

/** Repeats a request while the server says that it is busy, or nothing. */
async function patiently<T>(signal: AbortSignal | undefined, ask: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Refused && error.busy) || failures >= ATTEMPTS) throw error;
      await pause(Math.max(FIRST_WAIT_MS * 2 ** (failures - 1), error.waitMs), signal);
    }
  }
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(aborted());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The files of a Hugging Face folder that are read, those of sentence-transformers included. */
export const CHECKPOINT =
  /^((added_tokens|config|generation_config|special_tokens_map|tokenizer|tokenizer_config)\.json|(spiece|tokenizer|sentencepiece)\.model|model[^/]*\.safetensors|model\.safetensors\.index\.json|(modules|config_sentence_transformers|sentence_bert_config)\.json|\d+_[^/]+\/(config\.json|model\.safetensors))$/;

/** A file's path inside the chosen folder, or its name if files were chosen. */
export function inside(file: File): string {
  const path: string = file.webkitRelativePath ?? "";
  return path.slice(path.indexOf("/") + 1) || file.name;
}

/**
 * The address that `hf:owner/name[/file.gguf][@revision]` stands for; if no file is named, that of the repository's
 * Q8_0 file or only GGUF file. If it has safetensors only, the addresses of the checkpoint's files.
 */
export async function resolveHub(name: string, options: SourceOptions): Promise<string | CheckpointFile[]> {
  const parts = /^hf:([\w.-]+\/[\w.-]+?)(?:\/([^@]+))?(?:@([^@]+))?$/.exec(name);
  if (!parts) {
    throw new T5Error("bad-option", `expected hf:owner/name[/file.gguf][@revision], found ${name}`);
  }
  const [, repository, file, revision = "main"] = parts;
  const endpoint = hubAt(options.endpoint ?? HUB);
  const at = (path: string): string => path.split("/").map(encodeURIComponent).join("/");
  const resolve = (path: string): string => `${endpoint}/${repository}/resolve/${at(revision)}/${at(path)}`;
  if (file) return resolve(file);
  const api = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
  const { response, end } = await patiently(options.signal, () => request(api, options));
  let siblings: { rfilename: string }[] | undefined;
  try {
    ({ siblings } = (await within(response.json(), options)) as { siblings?: { rfilename: string }[] });
  } catch (error) {
    throwIfAborted(options.signal);
    throw new T5Error("network", `${api}: expected a list of files, found ${(error as Error).message}`);
  } finally {
    end();
  }
  const all = (siblings ?? []).map((sibling) => sibling.rfilename);
  const files = all.filter((path) => path.endsWith(".gguf"));
  const chosen = files.find((path) => /q8_0/i.test(path)) ?? (files.length === 1 ? files[0] : undefined);
  if (chosen) return resolve(chosen);
  if (files.length > 0) {
    throw new T5Error(
      "not-found",
      `hf:${repository}: expected a Q8_0 file, found ${files.join(", ")}: name one of them`,
    );
  }
  const checkpoint = all.filter((path) => CHECKPOINT.test(path));
  // Repositories may hold the same weights whole and in shards, or in several precisions: one of them is enough.
  const whole = checkpoint.includes("model.safetensors");
  const isWanted = (path: string): boolean =>
    !/^model.*safetensors/.test(path) ||
    (whole ? path === "model.safetensors" : !/\.(fp16|bf16)[.-]/.test(path));
  if (!checkpoint.some((path) => /^model.*\.safetensors$/.test(path)) || !checkpoint.includes("config.json")) {
    const found = all.length === 0 ? "no files" : all.join(", ");
    throw new T5Error("not-found", `hf:${repository}: expected a GGUF file or model.safetensors, found ${found}`);
  }
  return checkpoint.filter(isWanted).map((path) => ({ name: path, url: resolve(path) }));
}
