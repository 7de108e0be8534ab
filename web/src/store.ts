// Models kept on the device: in the origin's private file system, or in the Cache API if there is none.

import { absolute, inNode } from "./platform.js";
import { HUB, hubAt } from "./source.js";
import type { Progress } from "./types.js";

/** A model on the device. */
export interface StoredModel {
  /** What it was loaded from: an address, or an `hf:` name, with `from` its hub where that is another `endpoint`. */
  source: string;
  name: string;
  /** Bytes on the device. */
  bytes: number;
  /** False after an interrupted transfer, which the next load continues. */
  complete: boolean;
}

/** Description of a stored file. */
interface Meta {
  source: string;
  name: string;
  size: number;
  /** The server's version of the file: a transfer is only continued with the same one. */
  version: string | null;
  /** The SHA-256 that it was verified against. */
  sha256: string | null;
  complete: boolean;
}

/** A stored file, perhaps only its beginning. */
export interface Found extends Meta {
  file: Blob;
}

/** A file being stored. */
export interface Writer {
  write(chunk: Uint8Array): void | Promise<void>;
  /** The file is whole. */
  finish(sha256: string | null): Promise<void>;
  /** The transfer was interrupted; what has arrived is kept if the store can continue from it. */
  stop(): Promise<void>;
}

interface Store {
  find(source: string): Promise<Found | undefined>;
  /** Writes after the first `at` bytes that are stored. */
  writer(meta: Omit<Meta, "complete" | "sha256">, at: number): Promise<Writer>;
  /** Records that a stored file is complete, and its checksum. */
  finished(found: Found, sha256: string | null): Promise<void>;
  list(): Promise<StoredModel[]>;
  delete(source: string): Promise<boolean>;
  /** Deletes whatever is there, but what is being written. */
  clear(): Promise<void>;
}

const NAME = "pocket-t5";

/** A worker's synchronous file access. TypeScript declares it only for programs that run in workers alone. */
interface SyncAccess {
  truncate(size: number): void;
  write(bytes: Uint8Array, options?: { at: number }): number;
  flush(): void;
  close(): void;
}

function openSync(handle: FileSystemFileHandle): Promise<SyncAccess> {
  return (handle as unknown as { createSyncAccessHandle(): Promise<SyncAccess> }).createSyncAccessHandle();
}

/** Runs `f` while no other tab does so with the same source. */
export async function exclusively<T>(source: string, signal: AbortSignal | undefined, f: () => Promise<T>): Promise<T> {
  if (inNode || !globalThis.navigator?.locks) return f();
  return navigator.locks.request(`${NAME}: ${source}`, signal ? { signal } : {}, f) as Promise<T>;
}

/** Progress that a tab shares with others waiting for the same model. */
export class NewsOf {
  private readonly channel: BroadcastChannel | undefined;

  constructor(source: string) {
    this.channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(`${NAME}: ${source}`) : undefined;
  }

  tell(progress: Progress): void {
    this.channel?.postMessage(progress);
  }

  /** Receives the progress of other tabs, until called with undefined. */
  listen(hear: ((progress: Progress) => void) | undefined): void {
    if (this.channel) this.channel.onmessage = hear ? ({ data }: MessageEvent<Progress>) => hear(data) : null;
  }

  close(): void {
    this.channel?.close();
  }
}

/** Whether this many more bytes can be kept; undefined if the browser does not tell. */
export async function roomFor(bytes: number): Promise<boolean | undefined> {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return quota === undefined ? undefined : bytes <= quota - (usage ?? 0);
  } catch {
    return undefined;
  }
}

async function fileStore(): Promise<FileStore | undefined> {
  try {
    const root = await navigator.storage.getDirectory();
    return new FileStore(await root.getDirectoryHandle(NAME, { create: true }));
  } catch {
    return undefined;
  }
}

async function cacheStore(): Promise<CacheStore | undefined> {
  try {
    return new CacheStore(await caches.open(NAME));
  } catch {
    return undefined;
  }
}

/** The store to use in a worker; undefined in Node, without a secure context, or if the user forbids storage. */
export async function store(): Promise<Store | undefined> {
  // Runtimes without an origin have no private storage (Cloudflare's cache is shared).
  if (inNode || globalThis.location === undefined) return undefined;
  const writable =
    typeof FileSystemFileHandle === "function" && "createSyncAccessHandle" in FileSystemFileHandle.prototype;
  return (writable ? await fileStore() : undefined) ?? (await cacheStore());
}

/** All stores that exist: a page cannot tell which one its workers use. */
async function stores(): Promise<Store[]> {
  if (inNode || globalThis.location === undefined) return [];
  return [await fileStore(), await cacheStore()].filter((store) => store !== undefined);
}

/** What a model is kept under: one of another hub is another model, though its name is the same. */
export function keyOf(source: string, endpoint = HUB): string {
  const hub = hubAt(endpoint);
  return source.startsWith("hf:") && hub !== HUB ? `${source} from ${hub}` : source;
}

/** File names cannot contain addresses, so a hash of the address is used. */
async function key(source: string): Promise<string> {
  const sum = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(source));
  return Array.from(new Uint8Array(sum, 0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Keeps two files for each model: its bytes and its description. */
class FileStore implements Store {
  constructor(private readonly folder: FileSystemDirectoryHandle) {}

  async find(source: string): Promise<Found | undefined> {
    return this.read(await key(source));
  }

  private async read(name: string): Promise<Found | undefined> {
    try {
      const meta = await (await this.folder.getFileHandle(`${name}.json`)).getFile();
      const file = await (await this.folder.getFileHandle(`${name}.gguf`)).getFile();
      const found: Found = { ...(JSON.parse(await meta.text()) as Meta), file };
      // Bytes may have been lost when the tab was closed.
      return found.complete && file.size !== found.size ? { ...found, complete: false } : found;
    } catch {
      return undefined;
    }
  }

  async writer(meta: Omit<Meta, "complete" | "sha256">, at: number): Promise<Writer> {
    const name = await key(meta.source);
    const handle = await this.folder.getFileHandle(`${name}.gguf`, { create: true });
    // Writes in place, so that an interrupted transfer leaves what has arrived.
    const access = await openSync(handle);
    let position = at;
    const close = (): void => {
      access.flush();
      access.close();
    };
    try {
      // Before the description: a tab may end in between, and the bytes of one version must not be taken for another's.
      access.truncate(at);
      access.flush();
      await this.describe(name, { ...meta, sha256: null, complete: false });
    } catch (error) {
      access.close();
      throw error;
    }
    return {
      write: (chunk) => {
        const written = access.write(chunk, { at: position });
        if (written !== chunk.length) throw new Error(`stored ${written} of ${chunk.length} bytes`);
        position += written;
      },
      finish: async (sha256) => {
        close();
        await this.describe(name, { ...meta, sha256, complete: true });
      },
      stop: async () => close(),
    };
  }

  async finished({ file: _, ...meta }: Found, sha256: string | null): Promise<void> {
    await this.describe(await key(meta.source), { ...meta, sha256, complete: true });
  }

  private async describe(name: string, meta: Meta): Promise<void> {
    const handle = await this.folder.getFileHandle(`${name}.json`, { create: true });
    const access = await openSync(handle);
    access.truncate(0);
    access.write(new TextEncoder().encode(JSON.stringify(meta)));
    access.flush();
    access.close();
  }

  async list(): Promise<StoredModel[]> {
    const models: StoredModel[] = [];
    for await (const name of this.folder.keys()) {
      const found = name.endsWith(".json") ? await this.read(name.slice(0, -".json".length)) : undefined;
      if (found) {
        models.push({ source: found.source, name: found.name, bytes: found.file.size, complete: found.complete });
      }
    }
    return models;
  }

  async delete(source: string): Promise<boolean> {
    const name = await key(source);
    // The description first: bytes without one are ignored.
    const known = await this.remove(`${name}.json`);
    return (await this.remove(`${name}.gguf`)) || known;
  }

  async clear(): Promise<void> {
    const names: string[] = [];
    for await (const name of this.folder.keys()) names.push(name);
    // Also what no list has: bytes without a description, or with one that cannot be read.
    for (const name of names) await this.remove(name);
  }

  /** False if there is no such file, or it is being written. */
  private remove(file: string): Promise<boolean> {
    return this.folder.removeEntry(file).then(
      () => true,
      () => false,
    );
  }
}

/** Keeps one response for each model; complete files only. */
class CacheStore implements Store {
  constructor(private readonly cache: Cache) {}

  private address(source: string): string {
    return `${location.origin}/${NAME}/${encodeURIComponent(source)}`;
  }

  async find(source: string): Promise<Found | undefined> {
    const response = await this.cache.match(this.address(source));
    if (!response) return undefined;
    const meta = JSON.parse(decodeURIComponent(response.headers.get("x-meta") ?? "null")) as Meta;
    return { ...meta, file: await response.blob() };
  }

  async writer(meta: Omit<Meta, "complete" | "sha256">): Promise<Writer> {
    const parts: BlobPart[] = [];
    return {
      // The browser may keep a blob on disk; the parts are copies, since a chunk's memory may be used again.
      write: (chunk) => void parts.push(new Blob([chunk as Uint8Array<ArrayBuffer>])),
      finish: (sha256) => this.put({ ...meta, sha256, complete: true }, new Blob(parts)),
      stop: async () => {},
    };
  }

  async finished({ file, ...meta }: Found, sha256: string | null): Promise<void> {
    await this.put({ ...meta, sha256, complete: true }, file);
  }

  private async put(meta: Meta, file: Blob): Promise<void> {
    const headers = { "x-meta": encodeURIComponent(JSON.stringify(meta)) };
    await this.cache.put(this.address(meta.source), new Response(file, { headers }));
  }

  async list(): Promise<StoredModel[]> {
    const models: StoredModel[] = [];
    for (const request of await this.cache.keys()) {
      const found = await this.find(decodeURIComponent(new URL(request.url).pathname.slice(NAME.length + 2)));
      if (found) models.push({ source: found.source, name: found.name, bytes: found.size, complete: true });
    }
    return models;
  }

  async delete(source: string): Promise<boolean> {
    return this.cache.delete(this.address(source));
  }

  async clear(): Promise<void> {
    for (const request of await this.cache.keys()) await this.cache.delete(request);
  }
}

/** The models on this device. */
export const cache = {
  list: async (): Promise<StoredModel[]> => (await Promise.all((await stores()).map((store) => store.list()))).flat(),
  /** Bytes of all models. */
  size: async (): Promise<number> => (await cache.list()).reduce((sum, model) => sum + model.bytes, 0),
  /**
   * Deletes the model that `list` has under this source: the one it was loaded from, followed by the `endpoint` if that
   * was another than the usual one. False if there was none.
   */
  delete: async (source: string): Promise<boolean> =>
    (await Promise.all((await stores()).map((store) => store.delete(absolute(source))))).includes(true),
  clear: async (): Promise<void> => {
    for (const store of await stores()) await store.clear();
  },
};
