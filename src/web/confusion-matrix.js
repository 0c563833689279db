// Confusion matrix as a heat map. A cell leads to its examples; the chosen cell is part of the address.

import { encoded, getJson } from "./api.js";
import { card } from "./cards.js";
import { el, replace, scrollable } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { plural } from "./format.js";
import { examplesTable } from "./examples.js";
import { setQuery } from "./router.js";

const MAX_LABELS = 60;

export function confusionCard(job, validation, view) {
  const { confusion_matrix: matrix, example_lines: cells = [] } = validation;
  const { labels } = job;
  const { query } = view;
  if (!matrix?.length || matrix.length > MAX_LABELS || matrix.length !== labels.length) return null;
  const place = el("div", { class: "stack" });
  const linesOf = (label, predicted) => cells.find((one) => one.label === label && one.predicted === predicted)?.lines;
  let opened = new AbortController();
  const open = (label, predicted) => {
    query.set("label", label);
    query.set("predicted", predicted);
    setQuery(view);
    // An answer for the cell before is not shown.
    opened.abort();
    opened = new AbortController();
    showExamples(place, job, { label, predicted, lines: linesOf(label, predicted) }, AbortSignal.any([view.signal, opened.signal]));
  };
  if (linesOf(query.get("label"), query.get("predicted"))) open(query.get("label"), query.get("predicted"));
  const heat = el("table", { class: "heat" }, el("caption", { class: "visually-hidden" }, "Confusion matrix: rows are true labels, columns are predicted labels"),
    el("thead", {}, el("tr", {}, el("td"), labels.map((label) => el("th", { scope: "col", title: label }, el("span", {}, label))))),
    el("tbody", {}, matrix.map((counts, row) => matrixRow(counts, row, labels, linesOf, open))));
  return card("Confusion matrix", "Rows: true labels. Columns: predicted labels. Outlined: mistakes. A cell shows its examples.", scrollable("Confusion matrix", heat), place);
}

function level(count, total) {
  return count === 0 ? 0 : Math.min(4, 1 + Math.floor((count / Math.max(1, total)) * 3.99));
}

function matrixRow(counts, row, labels, linesOf, open) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const cell = (count, column) => {
    const title = `${labels[row]} predicted as ${labels[column]}: ${count}`;
    const content = linesOf(labels[row], labels[column])
      ? el("button", { type: "button", "aria-label": title, click: () => open(labels[row], labels[column]) }, String(count))
      : count || "·";
    return el("td", { class: `level-${level(count, total)}${count > 0 && row !== column ? " wrong" : ""}`, title }, content);
  };
  return el("tr", {}, el("th", { scope: "row", title: labels[row] }, labels[row]), counts.map(cell));
}

async function showExamples(place, job, { label, predicted, lines }, signal) {
  const title = label === predicted ? `“${label}” predicted correctly` : `“${label}” predicted as “${predicted}”`;
  try {
    const page = await getJson(`${encoded`jobs/${job.id}/validation-examples`}?lines=${lines.join(",")}`, { signal });
    const order = label === predicted ? "lowest confidence" : "misclassified with the highest confidence";
    replace(place, el("h3", {}, title), el("p", { class: "small muted" }, `${plural(page.data.length, "example")}: ${order}`), examplesTable(title, page.data));
    announce(`${plural(page.data.length, "example")} shown`);
  } catch (error) {
    if (!signal.aborted) replace(place, errorNotice(error));
  }
}
