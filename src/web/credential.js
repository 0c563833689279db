// Credential of the session: its owner and its scopes. Views offer what it may do.

import { el } from "./dom.js";

let current = null;

/** Answer of `/keys/current`; null before it is read. */
export function credential() {
  return current;
}

export function setCredential(found) {
  current = found;
}

/** Returns whether the credential has any of these scopes; true without scopes. */
export function may(...scopes) {
  return scopes.length === 0 || scopes.some((scope) => current.scopes.includes(scope));
}

/** Notice of something that the credential may not use. */
export function scopeNotice(subject, scopes) {
  const needed = `${subject} needs a key with the scope ${scopes.join(" or ")}. Ask an administrator for one.`;
  return el("p", { class: "notice" }, `${needed} Your key has: ${current.scopes.join(", ")}.`);
}
