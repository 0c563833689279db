// Jobs: a table that follows the server, with a filter and actions for several jobs.

import { getJson, post } from "./api.js";
import { el, replace, scrollable, select, setText } from "./dom.js";
import { act, announce, confirmed, errorNotice } from "./feedback.js";
import { mainMetric } from "./adapter-metrics.js";
import { dateTime, duration, percent, plural, words } from "./format.js";
import { every } from "./polling.js";
import { href, setQuery } from "./router.js";
import { Sparkline } from "./sparkline.js";

const STATUSES = ["queued", "paused", "running", "succeeded", "failed", "cancelled"];
const PAGE = 50;

export async function show(place, { query, signal }) {
  const status = query.get("status") ?? "";
  const inner = new AbortController();
  signal.addEventListener("abort", () => inner.abort());
  const filter = select([["", "All"], ...STATUSES.map((one) => [one, one])], status, (value) => {
    const next = new URLSearchParams(value ? { status: value } : {});
    setQuery(next);
    inner.abort();
    show(place, { query: next, signal });
  }, { "aria-label": "Status" });
  const list = new JobList(status, inner.signal);
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, "Jobs"), filter,
      el("div", { class: "end" }, el("a", { class: "button primary", href: "#/new" }, "New job"))),
    list.problems, list.card, list.empty);
  try {
    await list.refresh();
  } catch (error) {
    if (inner.signal.aborted) return;
    throw error;
  }
  every(() => (list.hasActive() ? 2000 : 5000), inner.signal, () => list.refresh(), (error) => replace(list.problems, error && errorNotice(error)));
}

/** Table of jobs that follows the server. */
class JobList {
  constructor(status, signal) {
    Object.assign(this, { status, signal, jobs: [], pages: 1, rows: new Map(), chosen: new Set() });
    this.problems = el("div");
    this.body = el("tbody");
    this.empty = el("div", { class: "card empty", hidden: true });
    this.more = el("button", { type: "button", click: () => this.showMore() }, "Show more");
    this.cancel = el("button", { type: "button", class: "danger", click: () => this.cancelChosen() });
    const headings = ["Choose", "Job", "Status", "Progress", "Task", "Method", "Result", "Created"].map((heading) =>
      el("th", { scope: "col" }, heading === "Choose" ? el("span", { class: "visually-hidden" }, heading) : heading));
    const table = el("table", { class: "stacking" }, el("caption", { class: "visually-hidden" }, "Jobs, newest first"),
      el("thead", {}, el("tr", {}, headings)), this.body);
    this.card = el("div", { class: "card", hidden: true }, scrollable("Jobs", table), el("div", { class: "row" }, this.more, this.cancel));
  }

  hasActive() {
    return this.jobs.some((job) => ["queued", "running"].includes(job.status));
  }

  async refresh() {
    const found = [];
    let next = "";
    for (let page = 0; page < this.pages && next != null; page += 1) {
      const filter = this.status ? `&status=${this.status}` : "";
      const answer = await getJson(`jobs?limit=${PAGE}${filter}${next && `&after=${next}`}`, { signal: this.signal });
      found.push(...answer.data);
      next = answer.next;
    }
    this.jobs = found;
    this.more.hidden = next == null;
    this.showRows();
  }

  /** Rows that stay are not touched: a focus or a selection in them remains. */
  showRows() {
    const rows = this.jobs.map((job) => {
      const row = this.rows.get(job.id) ?? jobRow(job.id, this.chosen, () => this.showActions());
      this.rows.set(job.id, row);
      row.update(job, this.signal);
      return row.element;
    });
    rows.forEach((row, index) => this.body.children[index] !== row && this.body.insertBefore(row, this.body.children[index] ?? null));
    while (this.body.children.length > rows.length) this.body.lastElementChild.remove();
    this.card.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    if (rows.length === 0 && !this.empty.hasChildNodes()) replace(this.empty, emptyParts(this.status));
    this.showActions();
  }

  showActions() {
    this.cancel.hidden = this.chosen.size === 0;
    setText(this.cancel, `Cancel ${this.chosen.size} chosen`);
  }

  showMore() {
    this.pages += 1;
    return act(this.more, this.problems, () => this.refresh());
  }

  async cancelChosen() {
    const ids = [...this.chosen];
    if (!(await confirmed(`Cancel ${plural(ids.length, "job")}?`, "A cancelled job cannot be resumed.", "Cancel the jobs"))) return;
    await act(this.cancel, this.problems, async () => {
      for (const id of ids) await post(`jobs/${id}/cancel`);
      this.chosen.clear();
      announce(`${plural(ids.length, "job")} cancelled`);
      await this.refresh();
    });
  }
}

function emptyParts(status) {
  if (status) return el("p", {}, `No ${status} job`);
  return [el("h2", {}, "Train the first adapter"), el("p", { class: "muted" }, "Drop a file with examples, look at the report, press start."),
    el("a", { class: "button primary", href: "#/new" }, "New job")];
}

/** Row of one job, which is updated in place. */
function jobRow(id, chosen, onChoice) {
  const choose = el("input", { type: "checkbox", change: () => { choose.checked ? chosen.add(id) : chosen.delete(id); onChoice(); } });
  const cell = (label, ...children) => el("td", { "data-label": label }, children);
  const link = el("a", { href: href(`jobs/${id}`) });
  const badge = el("span", { class: "badge" });
  const bar = el("progress", { max: "1", value: "0" });
  const text = el("span", { class: "small muted" });
  const [task, method, result, created] = ["Task", "Method", "Result", "Created"].map((label) => cell(label));
  const curve = new Sparkline(id);
  const progress = cell("Progress", el("div", { class: "progress-cell" }, bar, text, curve.element));
  const element = el("tr", {}, cell("Choose", choose), cell("Job", link), cell("Status", badge), progress, task, method, result, created);
  const update = (job, signal) => {
    const isActive = ["queued", "running", "paused"].includes(job.status);
    setText(link, job.name ?? job.id.slice(0, 8));
    choose.setAttribute("aria-label", `Choose ${job.name ?? job.id}`);
    choose.disabled = !isActive;
    if (!isActive && chosen.delete(id)) choose.checked = false;
    badge.className = `badge ${job.status}`;
    setText(badge, job.requested_action ? `${job.status}, ${job.requested_action} requested` : job.status);
    const share = job.progress ? job.progress.step / job.progress.total_steps : 0;
    bar.hidden = job.status !== "running" && job.status !== "paused";
    bar.value = share;
    curve.element.toggleAttribute("hidden", job.status !== "running");
    if (job.status === "running") curve.refresh(signal);
    bar.setAttribute("aria-label", `Progress of ${job.name ?? job.id}`);
    setText(text, progressText(job, share));
    setText(task, words(job.task.type));
    setText(method, words(job.method.type));
    setText(result, resultText(job));
    setText(created, dateTime(job.created_at));
    // A phone shows no empty lines.
    for (const [cell, isBlank] of [[progress, bar.hidden && !text.textContent], [choose.parentElement, !isActive], [result, !result.textContent]]) {
      cell.classList.toggle("blank", isBlank);
    }
  };
  return { element, update };
}

function progressText(job, share) {
  if (job.status === "running" && job.progress) return `${percent(share, 0)}, ${duration(job.progress.eta_seconds)} left`;
  if (job.status === "paused" && job.progress) return percent(share, 0);
  if (job.finished_at && job.started_at) return `took ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`;
  return "";
}

function resultText(job) {
  return job.error ? job.error.code : mainMetric(job);
}
