// The address of a view: `#/path?query`. The address holds the state of a view, so that reload and "back" lose nothing.

export function currentAddress() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: new URLSearchParams(query ?? "") };
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

/** Changes the query of the address without a new view and without an entry in the history. */
export function setQuery(query) {
  const { parts } = currentAddress();
  history.replaceState(null, "", href(parts.map(encodeURIComponent).join("/"), query));
}
