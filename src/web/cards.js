// Cards and tiles of the views.

import { el } from "./dom.js";

/** Section with a heading. `note` is a text beside the heading, or elements. */
export function card(title, note, ...content) {
  const noteElement = typeof note === "string" ? note && el("span", { class: "muted small" }, note) : note;
  return el("section", { class: "card", "aria-label": title },
    el("div", { class: "card-head" }, el("h2", {}, title), noteElement), content);
}

/** Name and value, for a list with the class `tiles`. */
export function tile(name, ...value) {
  return el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value));
}

/** Card of a list without entries. */
export function emptyCard(title, text, ...content) {
  return el("div", { class: "card empty" }, el("h2", {}, title), el("p", { class: "muted" }, text), content);
}
