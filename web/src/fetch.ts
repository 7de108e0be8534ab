// Lets a worker use the caller's `fetch`: functions cannot be sent to a worker, so requests and answers are.

import { T5Error } from "./errors.js";
import type { Fetching } from "./protocol.js";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** To the page: a request, a demand for the next piece of its body, or its cancellation. */
type Asked =
  | { id: number; url: string; headers: [string, string][]; cache: RequestCache }
  | { id: number; pull: true }
  | { id: number; abort: true };

/** To the worker. */
type Answered =
  | {
      id: number;
      head: { status: number; headers: [string, string][]; type: ResponseType; url: string; body: boolean };
    }
  | { id: number; chunk: Uint8Array | undefined }
  | { id: number; error: string };

/** A port in Node, which keeps the program running unless told otherwise. */
function quiet(port: MessagePort): MessagePort {
  (port as { unref?: () => void }).unref?.();
  return port;
}

/** Returns a port through which a worker can use `fetch`, until `close` is called. */
export function offer(fetch: Fetch): { port: MessagePort; close(): void } {
  const { port1, port2 } = new MessageChannel();
  const under = new Map<number, { abort: AbortController; reader?: ReadableStreamDefaultReader<Uint8Array> }>();
  const post = (message: Answered): void => port1.postMessage(message);
  const answer = async (asked: Asked): Promise<void> => {
    const { id } = asked;
    try {
      if ("abort" in asked) {
        under.get(id)?.abort.abort();
        under.delete(id);
      } else if ("pull" in asked) {
        const read = await under.get(id)?.reader?.read();
        post({ id, chunk: read?.value });
        if (!read || read.done) under.delete(id);
      } else {
        const abort = new AbortController();
        under.set(id, { abort });
        const { headers, cache } = asked;
        const response = await fetch(asked.url, { headers, cache, signal: abort.signal });
        const { status, type, url, body } = response;
        if (body) under.set(id, { abort, reader: body.getReader() });
        post({ id, head: { status, headers: [...response.headers], type, url, body: body !== null } });
      }
    } catch (error) {
      under.delete(id);
      post({ id, error: error instanceof Error ? error.message : String(error) });
    }
  };
  port1.onmessage = ({ data }: MessageEvent<Asked>) => void answer(data);
  quiet(port1);
  return {
    port: port2,
    close() {
      for (const { abort } of under.values()) abort.abort();
      port1.close();
    },
  };
}

/** `fetch` through a port whose other end {@link offer} has. */
export function through(port: MessagePort): Fetch {
  let next = 1;
  const waiting = new Map<number, { resolve(answer: Answered): void; reject(error: Error): void }>();
  port.onmessage = ({ data }: MessageEvent<Answered>) => {
    const one = waiting.get(data.id);
    waiting.delete(data.id);
    if ("error" in data) one?.reject(new TypeError(data.error));
    else one?.resolve(data);
  };
  quiet(port);
  const ask = <T extends Answered>(message: Asked): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      waiting.set(message.id, { resolve: resolve as (answer: Answered) => void, reject });
      port.postMessage(message);
    });
  return async (url, { headers, cache = "default", signal }) => {
    const id = next++;
    const abort = (): void => {
      port.postMessage({ id, abort: true } satisfies Asked);
      waiting.get(id)?.reject(new TypeError("the request was aborted"));
      waiting.delete(id);
    };
    signal?.addEventListener("abort", abort, { once: true });
    const end = (): void => signal?.removeEventListener("abort", abort);
    const asked: Asked = { id, url, headers: [...new Headers(headers)], cache };
    const { head } = await ask<Extract<Answered, { head: unknown }>>(asked);
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          const { chunk } = await ask<Extract<Answered, { chunk: unknown }>>({ id, pull: true });
          if (chunk) return controller.enqueue(chunk);
          end();
          controller.close();
        },
        cancel() {
          end();
          abort();
        },
      },
      { highWaterMark: 0 },
    );
    // The constructor throws if one of these statuses comes with a body.
    const response = new Response(head.body ? body : null, { status: head.status, headers: head.headers });
    return Object.defineProperties(response, { type: { value: head.type }, url: { value: head.url } });
  };
}

/** The `fetch` to use, the caller's or the worker's own, with the caller's headers added. */
export function fetching({ headers, token, endpoint, fetch: port }: Fetching, hub: string): Fetch {
  const ask: Fetch = port ? through(port) : (url, init) => fetch(url, init);
  const origin = new URL(endpoint ?? hub).origin;
  return (url, init) => {
    const all = new Headers(headers);
    new Headers(init.headers).forEach((value, name) => all.set(name, value));
    // A secret for one host must not reach another one.
    if (token !== undefined && new URL(url).origin === origin) all.set("authorization", `Bearer ${token}`);
    return ask(url, { ...init, headers: all });
  };
}

/** Throws if a token was given but no request would carry it. */
export function checkToken(source: unknown, { token, endpoint }: Fetching, hub: string): void {
  if (token === undefined || (typeof source === "string" && source.startsWith("hf:"))) return;
  const { origin } = new URL(endpoint ?? hub);
  const found = typeof source === "string" && /^https?:/.test(source) ? new URL(source).origin : "another source";
  if (found !== origin) {
    throw new T5Error("bad-option", `token: expected an hf: name or an address at ${origin}, found ${found}`);
  }
}
