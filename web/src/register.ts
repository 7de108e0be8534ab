// The page's side of the service worker.

/** What the service worker is asked to do. */
export interface ServiceWorkerOptions {
  /** Make the page cross-origin isolated, as threads need, from its next load on. */
  isolate?: boolean;
  /** Load the page anew, once, if it is to be isolated and is not yet. */
  reload?: boolean;
  /** The address of a JSON list of the page's files, to be kept for the time without a network. */
  files?: string;
}

const RELOADED = "pocket-t5: loaded again for isolation";

/**
 * Registers the package's service worker, which the page's host serves at `address` (copy `pocket-t5/service-worker`
 * beside the page: it can only govern what lies at its own address and below). Resolves with false where there are no
 * service workers: the page then works as before, with one thread and online.
 */
export async function registerServiceWorker(
  address: string | URL,
  { isolate = false, reload = false, files }: ServiceWorkerOptions = {},
): Promise<boolean> {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return false;
  const url = new URL(address, location.href);
  if (isolate) url.searchParams.set("isolate", "1");
  if (files) url.searchParams.set("files", files);
  try {
    await serviceWorker.register(url);
    await serviceWorker.ready;
  } catch {
    return false;
  }
  if (isolate && reload && !crossOriginIsolated && !sessionStorage.getItem(RELOADED)) {
    // Once: where the worker's headers do not help, the page stays as it is.
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
  }
  return true;
}
