// Repeats a request while the page is visible, and joins calls that come at once.

/** Calls `action` every `interval()` milliseconds, one call at a time. `onResult` gets the error, or null once it works again. */
export function every(interval, signal, action, onResult) {
  let hasFailed = false;
  const tick = async () => {
    if (signal.aborted) return;
    if (document.visibilityState === "visible") {
      try {
        await action();
        if (hasFailed) onResult(null);
        hasFailed = false;
      } catch (error) {
        if (signal.aborted) return;
        hasFailed = true;
        onResult(error);
      }
    }
    if (!signal.aborted) setTimeout(tick, interval());
  };
  setTimeout(tick, interval());
}

/** Function that calls `action` once, `delay` milliseconds after the first of several calls. */
export function once(delay, action) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    setTimeout(() => {
      isPlanned = false;
      action();
    }, delay);
  };
}
