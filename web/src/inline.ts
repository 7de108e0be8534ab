/**
 * The package with the worker's side in it, for places that have no workers (Cloudflare Workers), and for bundles that
 * use `threads: 0`. The module's code is given as `wasm` where it must not be fetched.
 */

import { useHost } from "./client.js";
import { serve } from "./host.js";

useHost(serve);

export * from "./index.js";
