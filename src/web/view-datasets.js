// Datasets: the stored files.

import { list } from "./api.js";
import { emptyCard } from "./cards.js";
import { el, replace, scrollable, table } from "./dom.js";
import { bytes, dateTime, number, shortId } from "./format.js";
import { href } from "./router.js";

export async function show(place) {
  const datasets = await list("datasets", 1000);
  const rows = datasets.map((dataset) => [
    el("a", { href: href(`datasets/${dataset.id}`) }, dataset.file_name ?? shortId(dataset.id)),
    dataset.options.format, number(dataset.report.examples), number(dataset.report.labels.length), bytes(dataset.bytes), dateTime(dataset.created_at),
    el("a", { href: href("new", { dataset: dataset.id }) }, "Train"),
  ]);
  const numeric = (label) => ({ label, number: true });
  const headings = ["File", "Format", numeric("Examples"), numeric("Labels"), numeric("Size"), "Uploaded", "New job"];
  const content = rows.length
    ? el("div", { class: "card" }, scrollable("Datasets", table(headings, rows, { className: "stacking", caption: "Datasets, newest first" })))
    : emptyCard("No dataset yet", "The form of a new job stores the datasets that it checks.", el("a", { class: "button primary", href: "#/new" }, "New job"));
  replace(place, el("div", { class: "page-head" }, el("h1", {}, "Datasets")), content);
}
