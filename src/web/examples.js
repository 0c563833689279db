// Examples of a dataset as training reads them.

import { encoded, getJson } from "./api.js";
import { card } from "./cards.js";
import { el, scrollable, setText, table } from "./dom.js";
import { act } from "./feedback.js";
import { number, words } from "./format.js";
import { patch } from "./patch.js";

const PAGE = 20;

/** Text of a chat message: its parts, and its calls of tools. */
function messageText({ role, content, tool_calls: calls }) {
  const texts = Array.isArray(content) ? content.map((part) => part.text ?? `[${part.type}]`) : [content ?? ""];
  const called = (calls ?? []).map(({ function: called }) => {
    const values = called?.arguments;
    return `${called?.name}(${typeof values === "string" ? values : JSON.stringify(values ?? {})})`;
  });
  return `${role}: ${[...texts, ...called].filter(Boolean).join(" ")}`;
}

/** What an example teaches, as text. */
function targetText(target) {
  if (typeof target === "string") return "–";
  const [[kind, value]] = Object.entries(target);
  if (kind === "conversation") return value.messages.map(messageText).join("\n");
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
  const place = el("div", { class: "stack" });
  const problems = el("div");
  const button = el("button", { type: "button" }, "More");
  const examples = [];
  let next = 0;
  const load = async () => {
    await act(button, problems, readPage);
    setText(button, examples.length > 0 ? "More" : "Try again");
  };
  const readPage = async () => {
    const page = await getJson(encoded`datasets/${dataset.id}/examples?limit=${PAGE}&after=${next}`, { signal });
    examples.push(...page.data);
    next = page.next;
    patch(place, examplesTable("Examples", examples));
    button.hidden = next == null;
  };
  button.addEventListener("click", load);
  load();
  return card("Examples", "As training reads them", place, problems, el("div", {}, button));
}
