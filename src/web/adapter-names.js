// Names of adapters. One that another owner shares has the name `owner/name`.

/** Name that requests use; null for an unnamed adapter. */
export function fullName({ owner, name }) {
  return name && owner ? `${owner}/${name}` : name;
}

/** Reference of requests to this version: an adapter that another owner shares is referred to by its name, while the name refers to it. */
export function referenceOf(adapter) {
  return adapter.owner && adapter.is_current && adapter.name ? fullName(adapter) : adapter.id;
}

/** Versions of each name, newest first; an unnamed adapter is an entry of its own. */
export function byName(adapters) {
  const names = new Map();
  for (const adapter of adapters) {
    const key = fullName(adapter) ?? adapter.id;
    if (!names.has(key)) names.set(key, []);
    names.get(key).push(adapter);
  }
  return names;
}
