// A new key, which is shown once.

import { card } from "./cards.js";
import { el, field } from "./dom.js";
import { announce, copyText } from "./feedback.js";

/** Card with the key of an answer to its creation or rotation. */
export function newKeyCard({ key, name, owner }) {
  const shown = el("input", { class: "secret", readonly: true, autocomplete: "off", spellcheck: "false", value: key, focus: () => shown.select() });
  const copy = el("button", { type: "button", class: "primary", click: () => copyText(key, copy) }, "Copy the key");
  announce("The key is created. It is shown once.");
  return card(`Key of ${owner}: ${name}`, null,
    el("p", {}, "This key is shown once. Copy it now and store it where secrets belong: the server keeps only its SHA-256, and nobody can read the key again."),
    field("API key", shown), el("div", {}, copy));
}
