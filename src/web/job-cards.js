// Card of a job's view.

import { el } from "./dom.js";

export function card(title, note, ...content) {
  return el("section", { class: "card", "aria-label": title },
    el("div", { class: "card-head" }, el("h2", {}, title), note && el("span", { class: "muted small" }, note)), content);
}
