// The page's side of the service worker.

/** What the service worker is asked to do. */
export interface ServiceWorkerOptions {
  /** Make the page cross-origin isolated, as threads need, from its next load on. */
  isolate?: boolean;
  /** Load the page anew, once, if it is to be isolated and is not yet. */
  reload?: boolean;
  /** The address of a JSON list of the page's files, to be kept for the time without a network. */
  files?: string;
  /**
   * What stands for this state of the files, such as a hash of them: with another one they are kept anew, and those of
   * before are dropped. A build may write it into the service worker instead.
   */
  version?: string;
  /** A folder whose files never change, since their names have a hash: kept ones are used without asking its host. */
  immutable?: string;
  /** Addresses that are kept besides, once the page has used them: the module that runs, `info().moduleUrl`. */
  keep?: string[];
}

const RELOADED = "pocket-t5: loaded again for isolation";

/**
 * Registers the package's service worker, which the page's host serves at `address` (copy `pocket-t5/service-worker`
 * beside the page: it can only govern what lies at its own address and below). Resolves with false where there are no
 * service workers: the page then works as before, with one thread and online.
 */
export async function registerServiceWorker(
  address: string | URL,
  { isolate = false, reload = false, files, version, immutable, keep }: ServiceWorkerOptions = {},
): Promise<boolean> {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return false;
  const url = new URL(address, location.href);
  if (isolate) url.searchParams.set("isolate", "1");
  if (files) url.searchParams.set("files", files);
  if (immutable) url.searchParams.set("immutable", immutable);
  if (version) url.searchParams.set("version", version);
  try {
    const registration = await serviceWorker.register(url);
    await serviceWorker.ready;
    if (keep) tell(registration, { keep });
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

/** Sends a message to the service worker, and to one that takes its place while the page is there. */
function tell(registration: ServiceWorkerRegistration, message: object): void {
  const send = (worker: ServiceWorker | null): void => {
    if (!worker) return;
    // What it keeps before it is active, it may drop again.
    if (worker.state === "activated") worker.postMessage(message);
    else worker.addEventListener("statechange", () => worker.state === "activated" && worker.postMessage(message));
  };
  send(registration.installing ?? registration.waiting ?? registration.active);
  registration.addEventListener("updatefound", () => send(registration.installing));
}
