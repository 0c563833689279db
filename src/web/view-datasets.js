// Datasets: the stored files.

import { list } from "./api.js";
import { el, replace, scrollable, table } from "./dom.js";
import { bytes, dateTime, number } from "./format.js";
import { href } from "./router.js";

export async function show(place) {
  const datasets = await list("datasets", 1000);
  const rows = datasets.map((dataset) => [
    el("a", { href: href(`datasets/${dataset.id}`) }, dataset.file_name ?? dataset.id.slice(0, 8)),
    dataset.options.format, number(dataset.report.examples), number(dataset.report.labels.length) , bytes(dataset.bytes), dateTime(dataset.created_at),
    el("a", { href: href("new", { dataset: dataset.id }) }, "Train"),
  ]);
  const numeric = (label) => ({ label, number: true });
  const headings = ["File", "Format", numeric("Examples"), numeric("Labels"), numeric("Size"), "Uploaded", "New job"];
  const content = rows.length
    ? el("div", { class: "card" }, scrollable("Datasets", table(headings, rows, { className: "stacking", caption: "Datasets, newest first" })))
    : el("div", { class: "card empty" }, el("h2", {}, "No dataset yet"), el("p", { class: "muted" }, "A dataset is stored when a job uses it."), el("a", { class: "button primary", href: "#/new" }, "New job"));
  replace(place, el("div", { class: "page-head" }, el("h1", {}, "Datasets")), content);
}
