// One dataset: its report, the jobs that used it, and what can be done with it.

import { getJson, list, remove } from "./api.js";
import { el, replace, scrollable, table } from "./dom.js";
import { act, confirmed } from "./feedback.js";
import { examplesCard } from "./examples.js";
import { bytes, dateTime, words } from "./format.js";
import { reportView } from "./report.js";
import { go, href } from "./router.js";

export async function show(place, { rest, signal }) {
  const [dataset, jobs] = await Promise.all([getJson(`datasets/${rest[0]}`), list("jobs", 1000)]);
  if (signal.aborted) return;
  const users = jobs.filter((job) => job.dataset_id === dataset.id);
  const problems = el("div");
  const button = el("button", { type: "button", class: "danger" }, "Delete");
  button.addEventListener("click", () => act(button, problems, async () => {
    if (!(await confirmed("Delete this dataset?", "Adapters that were trained with it stay.", "Delete"))) return;
    await remove(`datasets/${dataset.id}`);
    go("datasets");
  }));
  const rows = users.map((job) => [
    el("a", { href: href(`jobs/${job.id}`) }, job.name ?? job.id.slice(0, 8)), el("span", { class: `badge ${job.status}` }, job.status), words(job.method.type), dateTime(job.created_at),
  ]);
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, dataset.file_name ?? "Dataset"), el("span", { class: "muted" }, bytes(dataset.bytes)),
      el("div", { class: "end" }, el("a", { class: "button primary", href: href("new", { dataset: dataset.id }) }, "New job with it"), button)),
    problems,
    el("section", { class: "card", "aria-label": "Report" }, el("h2", {}, "Report"), reportView(dataset.report, null)),
    examplesCard(dataset, signal),
    el("section", { class: "card", "aria-label": "Jobs" }, el("h2", {}, "Jobs that used it"),
      rows.length ? scrollable("Jobs", table(["Job", "Status", "Method", "Created"], rows, { className: "stacking" })) : el("p", { class: "muted" }, "None")),
    el("p", { class: "small muted" }, "sha256 ", el("code", {}, dataset.hash)));
}
