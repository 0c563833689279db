// One dataset: its report, its examples, the jobs that used it, and what can be done with it.

import { encoded, getJson, list, remove } from "./api.js";
import { card } from "./cards.js";
import { el, replace, scrollable, table } from "./dom.js";
import { act, confirmed } from "./feedback.js";
import { examplesCard } from "./examples.js";
import { bytes, dateTime, jobTitle, words } from "./format.js";
import { reportView } from "./report.js";
import { go, href } from "./router.js";

const SEARCHED_JOBS = 1000;

export async function show(place, { rest, signal }) {
  const [dataset, jobs] = await Promise.all([getJson(encoded`datasets/${rest[0]}`, { signal }), list("jobs", SEARCHED_JOBS, { signal })]);
  if (signal.aborted) return;
  const problems = el("div");
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, dataset.file_name ?? "Dataset"), el("span", { class: "muted" }, bytes(dataset.bytes)),
      el("div", { class: "end" }, el("a", { class: "button primary", href: href("new", { dataset: dataset.id }) }, "New job with it"), deleteButton(dataset, problems))),
    problems,
    card("Report", null, reportView(dataset.report, null)),
    examplesCard(dataset, signal),
    jobsCard(dataset, jobs),
    el("p", { class: "small muted" }, "sha256 ", el("code", {}, dataset.hash)));
}

function deleteButton(dataset, problems) {
  const button = el("button", { type: "button", class: "danger" }, "Delete");
  button.addEventListener("click", () => act(button, problems, async () => {
    if (!(await confirmed("Delete this dataset?", "Adapters that were trained with it are kept.", "Delete"))) return;
    await remove(encoded`datasets/${dataset.id}`);
    go("datasets");
  }));
  return button;
}

function jobsCard(dataset, jobs) {
  const rows = jobs.filter((job) => job.dataset_id === dataset.id).map((job) => [
    el("a", { href: href(`jobs/${job.id}`) }, jobTitle(job)), el("span", { class: `badge ${job.status}` }, job.status), words(job.method.type), dateTime(job.created_at),
  ]);
  const note = jobs.length >= SEARCHED_JOBS ? "Among the newest 1,000 jobs" : null;
  return card("Jobs that used it", note,
    rows.length ? scrollable("Jobs", table(["Job", "Status", "Method", "Created"], rows, { className: "stacking" })) : el("p", { class: "muted" }, "None"));
}
