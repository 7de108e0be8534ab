/**
 * The package including the worker's code, for places without workers (Cloudflare Workers) and for bundles that use
 * `threads: 0`. Where code must not be compiled from bytes, pass the compiled module as `wasm`.
 */

import { useHost } from "./client.js";
import { serve } from "./host.js";

useHost(serve);

export * from "./index.js";
