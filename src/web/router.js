// The address of a view: `#/path?query`. The address holds the state of a view, so that it survives a reload and the back button.

let firstView = "jobs";
/** Sets the view of an address that names none. */
export function setFirstView(name) {
  firstView = name;
}

/** Path, its parts and the query of the address. */
export function currentAddress() {
  const [path, query] = isViewAddress() ? location.hash.slice(1).split("?") : [""];
  const parts = path.split("/").filter(Boolean).map(decoded);
  if (parts.length === 0) parts.push(firstView);
  return { parts, path: parts.map(encodeURIComponent).join("/"), query: new URLSearchParams(query ?? "") };
}

/** Returns whether the address names a view, and not an element of the page. */
export function isViewAddress() {
  return location.hash === "" || location.hash.startsWith("#/");
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function href(path, query = {}) {
  const parameters = query instanceof URLSearchParams ? query : new URLSearchParams();
  if (!(query instanceof URLSearchParams)) {
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? value : [value]) if (one != null && one !== "") parameters.append(name, one);
    }
  }
  const text = parameters.toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}

export function go(path, query) {
  location.hash = href(path, query);
}

/** Writes the query of a view to the address, without a new view and without an entry in the history. A view that was left writes
 * nothing. */
export function setQuery({ path, query, signal }) {
  if (signal.aborted || currentAddress().path !== path) return;
  history.replaceState(null, "", href(path, query));
}
