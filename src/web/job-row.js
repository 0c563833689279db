// Row of a job in the list, which is updated in place.

import { mainMetric } from "./adapter-metrics.js";
import { el, setText } from "./dom.js";
import { dateTime, duration, jobTitle, percent, words } from "./format.js";
import { isActive, statusText } from "./job-status.js";
import { href } from "./router.js";
import { Sparkline } from "./sparkline.js";

export class JobRow {
  /** `onSelect` gets whether the row is selected. */
  constructor(id, onSelect) {
    const cell = (label, ...children) => el("td", { "data-label": label }, children);
    this.select = el("input", { type: "checkbox", change: () => onSelect(this.select.checked) });
    this.link = el("a", { href: href(`jobs/${id}`) });
    this.badge = el("span", { class: "badge" });
    this.bar = el("progress", { max: "1", value: "0" });
    this.text = el("span", { class: "small muted" });
    this.curve = new Sparkline(id);
    this.selectCell = cell("Select", this.select);
    this.progress = cell("Progress", el("div", { class: "progress-cell" }, this.bar, this.text, this.curve.element));
    [this.task, this.method, this.result, this.created] = ["Task", "Method", "Result", "Created"].map((label) => cell(label));
    this.element = el("tr", {}, this.selectCell, cell("Job", this.link), cell("Status", this.badge), this.progress, this.task, this.method, this.result, this.created);
  }

  update(job, isSelected, signal) {
    const title = jobTitle(job);
    setText(this.link, title);
    this.select.setAttribute("aria-label", `Select ${title}`);
    this.select.disabled = !isActive(job);
    this.select.checked = isSelected;
    this.badge.className = `badge ${job.status}`;
    setText(this.badge, statusText(job));
    this.updateProgress(job, title, signal);
    setText(this.task, words(job.task.type));
    setText(this.method, words(job.method.type));
    setText(this.result, job.error ? job.error.code : mainMetric(job));
    setText(this.created, dateTime(job.created_at));
    // A phone shows no empty lines.
    this.progress.classList.toggle("blank", this.bar.hidden && !this.text.textContent);
    this.selectCell.classList.toggle("blank", !isActive(job));
    this.result.classList.toggle("blank", !this.result.textContent);
  }

  updateProgress(job, title, signal) {
    const share = job.progress ? job.progress.step / job.progress.total_steps : 0;
    this.bar.hidden = job.status !== "running" && job.status !== "paused";
    this.bar.value = share;
    this.bar.setAttribute("aria-label", `Progress of ${title}`);
    this.curve.element.toggleAttribute("hidden", job.status !== "running");
    if (job.status === "running") this.curve.refresh(signal);
    setText(this.text, progressText(job, share));
  }
}

function progressText(job, share) {
  if (job.status === "running" && job.progress) return `${percent(share, 0)}, ${duration(job.progress.eta_seconds)} left`;
  if (job.status === "paused" && job.progress) return percent(share, 0);
  if (job.finished_at && job.started_at) return `took ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`;
  return "";
}
