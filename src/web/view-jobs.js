// Jobs: a table that follows the server, with a filter and actions for several jobs.

import { encoded, getPage, post } from "./api.js";
import { emptyCard } from "./cards.js";
import { el, replace, scrollable, select, setText } from "./dom.js";
import { act, announce, confirmed, errorNotice, showPollingError } from "./feedback.js";
import { jobTitle, plural } from "./format.js";
import { JobRow } from "./job-row.js";
import { isActive } from "./job-status.js";
import { every } from "./polling.js";
import { setQuery } from "./router.js";

const STATUSES = ["queued", "paused", "running", "succeeded", "failed", "cancelled"];
const PAGE = 50;

export async function show(place, view) {
  const { query, signal } = view;
  const list = new JobList(query.get("status") ?? "", signal);
  const filter = select([["", "All"], ...STATUSES.map((one) => [one, one])], list.status, (value) => {
    if (value) query.set("status", value);
    else query.delete("status");
    setQuery(view);
    list.filter(value);
  }, { "aria-label": "Status" });
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, "Jobs"), filter,
      el("div", { class: "end" }, el("a", { class: "button primary", href: "#/new" }, "New job"))),
    list.pollingProblems, list.problems, list.card, list.empty);
  await list.refresh();
  every(() => (list.hasActive() ? 2000 : 5000), signal, () => list.refresh(), (error) => showPollingError(list.pollingProblems, error));
}

/** Table of jobs that follows the server. */
class JobList {
  constructor(status, signal) {
    Object.assign(this, { status, signal, jobs: [], pages: 1, rows: new Map(), selected: new Set(), lastRequest: 0 });
    this.pollingProblems = el("div");
    this.problems = el("div");
    this.body = el("tbody");
    this.empty = el("div", { hidden: true });
    this.more = el("button", { type: "button", click: () => this.showMore() }, "Show more");
    this.cancel = el("button", { type: "button", class: "danger", click: () => this.cancelSelected() });
    const headings = ["Job", "Status", "Progress", "Task", "Method", "Result", "Created"].map((heading) => el("th", { scope: "col" }, heading));
    const table = el("table", { class: "stacking" }, el("caption", { class: "visually-hidden" }, "Jobs, newest first"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "visually-hidden" }, "Select")), headings)), this.body);
    this.card = el("div", { class: "card", hidden: true }, scrollable("Jobs", table), el("div", { class: "row" }, this.more, this.cancel));
  }

  hasActive() {
    return this.jobs.some((job) => ["queued", "running"].includes(job.status));
  }

  /** Shows the jobs with another status. A failure is repeated like that of a periodic request. */
  async filter(status) {
    Object.assign(this, { status, pages: 1 });
    try {
      await this.refresh();
      showPollingError(this.pollingProblems, null);
      announce(`${plural(this.jobs.length, "job")} shown`);
    } catch (error) {
      if (!this.signal.aborted) showPollingError(this.pollingProblems, error);
    }
  }

  async refresh() {
    this.lastRequest += 1;
    const mine = this.lastRequest;
    const found = [];
    let next = "";
    for (let page = 0; page < this.pages && next != null; page += 1) {
      const answer = await getPage("jobs", { status: this.status, after: next }, PAGE, { signal: this.signal });
      found.push(...answer.data);
      next = answer.next;
    }
    // An answer for an earlier filter is not shown.
    if (mine !== this.lastRequest) return;
    this.jobs = found;
    this.more.hidden = next == null;
    this.showRows();
  }

  /** Rows that are kept are not touched: a focus or a selection in them remains. */
  showRows() {
    const ids = new Set(this.jobs.map((job) => job.id));
    for (const id of this.rows.keys()) if (!ids.has(id)) this.rows.delete(id);
    const active = new Set(this.jobs.filter(isActive).map((job) => job.id));
    for (const id of this.selected) if (!active.has(id)) this.selected.delete(id);
    const rows = this.jobs.map((job) => this.updatedRow(job));
    rows.forEach((row, index) => this.body.children[index] !== row && this.body.insertBefore(row, this.body.children[index] ?? null));
    while (this.body.children.length > rows.length) this.body.lastElementChild.remove();
    this.card.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    if (rows.length === 0) replace(this.empty, emptyParts(this.status));
    this.showActions();
  }

  updatedRow(job) {
    const row = this.rows.get(job.id) ?? new JobRow(job.id, (isSelected) => this.selectJob(job.id, isSelected));
    this.rows.set(job.id, row);
    row.update(job, this.selected.has(job.id), this.signal);
    return row.element;
  }

  selectJob(id, isSelected) {
    if (isSelected) this.selected.add(id);
    else this.selected.delete(id);
    this.showActions();
  }

  showActions() {
    this.cancel.hidden = this.selected.size === 0;
    setText(this.cancel, `Cancel ${this.selected.size} selected`);
  }

  showMore() {
    this.pages += 1;
    return act(this.more, this.problems, () => this.refresh());
  }

  async cancelSelected() {
    const jobs = this.jobs.filter((job) => this.selected.has(job.id));
    if (!(await confirmed(`Cancel ${plural(jobs.length, "job")}?`, "A cancelled job cannot be resumed.", "Cancel the jobs"))) return;
    await act(this.cancel, this.problems, async () => {
      const results = await Promise.allSettled(jobs.map((job) => post(encoded`jobs/${job.id}/cancel`)));
      this.selected.clear();
      this.reportCancelled(jobs, results);
      await this.refresh();
    });
  }

  reportCancelled(jobs, results) {
    const failures = results.flatMap(({ reason }, index) => (reason ? [{ message: `${jobTitle(jobs[index])}: ${reason.message}` }] : []));
    announce(`${plural(jobs.length - failures.length, "job")} cancelled`);
    if (failures.length === 0) return;
    const message = `${failures.length} of ${plural(jobs.length, "job")} ${failures.length === 1 ? "was" : "were"} not cancelled.`;
    replace(this.problems, errorNotice({ message, fields: failures }));
  }
}

function emptyParts(status) {
  if (status) return el("div", { class: "card empty" }, el("p", {}, `No ${status} job`));
  return emptyCard("Train the first adapter", "Drop a file with examples, check the report and start training.",
    el("a", { class: "button primary", href: "#/new" }, "New job"));
}
