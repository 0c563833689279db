// Examples of a dataset as training reads them.

import { getJson } from "./api.js";
import { el, replace, scrollable, table } from "./dom.js";
import { act } from "./feedback.js";
import { number, words } from "./format.js";

const PAGE = 20;

/** What an example teaches, as text. */
function targetText(target) {
  if (typeof target === "string") return "–";
  const [[kind, value]] = Object.entries(target);
  if (kind === "conversation") return value.messages.map((message) => `${message.role}: ${message.content ?? ""}`).join("\n");
  if (kind === "tags") return value.tags.join(" ");
  if (Array.isArray(value)) return value.join(", ") || "no label";
  if (value && typeof value === "object") {
    return Object.entries(value).filter(([, part]) => part != null)
      .map(([name, part]) => `${words(name)}: ${typeof part === "string" ? part : targetText({ conversation: part })}`).join("\n");
  }
  return typeof value === "number" ? number(value) : String(value);
}

export function examplesTable(label, examples) {
  const hasPairs = examples.some((example) => example.text_pair != null);
  const headings = [{ label: "Line", number: true }, "Text", hasPairs && "Second text", "Target"].filter(Boolean);
  const rows = examples.map((example) => [
    number(example.line), el("div", { class: "example" }, example.text), hasPairs && el("div", { class: "example" }, example.text_pair ?? ""),
    el("div", { class: "example" }, targetText(example.target)),
  ].filter((cell) => cell !== false));
  return scrollable(label, table(headings, rows), "scroll tall");
}

/** Card with the first examples of a dataset, and a button for the following ones. */
export function examplesCard(dataset, signal) {
  const place = el("div", { class: "stack" }, el("p", { class: "muted" }, "…"));
  const problems = el("div");
  const button = el("button", { type: "button" }, "More");
  const examples = [];
  let next = 0;
  const load = () => act(button, problems, async () => {
    const page = await getJson(`datasets/${dataset.id}/examples?limit=${PAGE}&after=${next}`, { signal });
    examples.push(...page.data);
    next = page.next;
    replace(place, examplesTable("Examples", examples), next != null && el("div", {}, button));
  });
  button.addEventListener("click", load);
  load();
  return el("section", { class: "card", "aria-label": "Examples" },
    el("div", { class: "card-head" }, el("h2", {}, "Examples"), el("span", { class: "muted small" }, "As training reads them")), place, problems);
}
