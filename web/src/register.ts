// The page's side of the service worker.

/** What the service worker is asked to do. */
export interface ServiceWorkerOptions {
  /** Make the page cross-origin isolated (which threads need) from its next load on. */
  isolate?: boolean;
  /** Reload the page once if it should be isolated and is not yet. */
  reload?: boolean;
  /** The address of a JSON list of the page's files, which are kept for offline use. */
  files?: string;
  /**
   * Identifies this version of the files, for example a hash of them. When it changes, the files are fetched again and
   * the old ones deleted. A build may write it into the service worker instead.
   */
  version?: string;
  /** A folder whose files never change (their names contain a hash): kept copies are used without asking the host. */
  immutable?: string;
  /** Further addresses to keep once the page has used them, such as the module that runs: `info().moduleUrl`. */
  keep?: string[];
}

const RELOADED = "pocket-t5: loaded again for isolation";

/**
 * Registers the package's service worker, which the page's host serves at `address` (copy `pocket-t5/service-worker`
 * beside the page: it only controls its own folder and those below). Resolves with false if there are no service
 * workers, or this one cannot be installed; the page then works as before, online and with one thread.
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
  let newest: ServiceWorker | null;
  try {
    const registration = await serviceWorker.register(url);
    const { active, waiting, installing } = registration;
    if (!(await starts(active ?? waiting ?? installing))) return false;
    if (keep) tell(registration, { keep });
    newest = installing ?? waiting ?? active;
  } catch {
    return false;
  }
  // One that was there before may not isolate, so the page waits for its successor.
  const wanted = isolate && reload && !crossOriginIsolated && !sessionStorage.getItem(RELOADED);
  if (wanted && (await starts(newest))) {
    // Only once: if the service worker's headers do not isolate the page, it stays as it is.
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
  }
  return true;
}

/**
 * Waits until a service worker is active; false if it could not be installed, as where one of its files is missing.
 * `navigator.serviceWorker.ready` would then wait for ever.
 */
function starts(worker: ServiceWorker | null): Promise<boolean> {
  return new Promise((resolve) => {
    const look = (): void => {
      const state = worker?.state ?? "redundant";
      if (state === "redundant") resolve(false);
      else if (state === "activating" || state === "activated") resolve(true);
    };
    worker?.addEventListener("statechange", look);
    look();
  });
}

/** Sends a message to the service worker, and to any that replaces it while the page is open. */
function tell(registration: ServiceWorkerRegistration, message: object): void {
  const send = (worker: ServiceWorker | null): void => {
    if (!worker) return;
    // Activation may delete what was kept before it.
    if (worker.state === "activated") worker.postMessage(message);
    else worker.addEventListener("statechange", () => worker.state === "activated" && worker.postMessage(message));
  };
  send(registration.installing ?? registration.waiting ?? registration.active);
  registration.addEventListener("updatefound", () => send(registration.installing));
}
