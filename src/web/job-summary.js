// Summary of a job: progress, tiles, and its status changes.

import { card, tile } from "./cards.js";
import { may } from "./credential.js";
import { el, setText } from "./dom.js";
import { dateTime, duration, number, percent, plural, words } from "./format.js";
import { isActive } from "./job-status.js";
import { href } from "./router.js";

export function summaryParts(job) {
  return [
    job.error && el("div", { class: "notice error" }, el("strong", {}, job.error.detail), el("span", { class: "small" }, job.error.code)),
    isActive(job) && progressCard(job),
    el("dl", { class: "tiles" },
      tile("Task", words(job.task.type)), tile("Method", words(job.method.type)),
      tile("Adapter", adapterText(job)),
      tile("Started", dateTime(job.started_at)),
      tile("Time", job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "–"),
      tile("Attempts", number(job.attempt))),
  ];
}

function adapterText({ adapter, adapter_id: id }) {
  if (!adapter) return id ? "deleted" : "–";
  if (!may("adapters:read")) return adapter.name ?? "unnamed";
  return el("a", { href: href(`adapters/${encodeURIComponent(adapter.name ?? adapter.id)}`) }, adapter.name ?? "unnamed");
}

function progressCard(job) {
  const progress = el("progress", { class: "job-progress", max: "1", value: "0", "aria-label": "Progress of the job" });
  const text = el("p", { class: "job-progress-text" });
  showProgressIn(progress, text, job);
  return el("div", { class: "card" }, progress, text);
}

/** Shows the job's progress in its summary. */
export function showProgress(summary, job) {
  const progress = summary.querySelector(".job-progress");
  if (progress) showProgressIn(progress, summary.querySelector(".job-progress-text"), job);
}

function showProgressIn(element, text, job) {
  const { progress } = job;
  if (!progress) {
    setText(text, job.status === "queued" ? waitingText(job) : "Preparing …");
    return;
  }
  element.value = progress.step / progress.total_steps;
  setText(text, [
    `${percent(element.value, 0)}: step ${number(progress.step)} of ${number(progress.total_steps)}`,
    `epoch ${number(progress.epoch, 1)}`, `${number(progress.examples_per_second, 0)} examples/s`,
    job.status === "running" ? `${duration(progress.eta_seconds)} left` : job.status === "queued" ? waitingText(job) : job.status,
  ].join(" · "));
}

function waitingText({ queue_position: position, next_attempt_at: nextAttempt, waiting_for: waitingFor }) {
  if (waitingFor) return `It waits for a worker with the base model ${waitingFor.base} and the kernel set ${waitingFor.kernels}`;
  if (nextAttempt && new Date(nextAttempt) > Date.now()) return `The next attempt starts after ${dateTime(nextAttempt, "medium")}`;
  if (position > 0) return `${plural(position, "job")} ${position === 1 ? "is" : "are"} before it in the queue`;
  return "It starts as soon as a worker is free";
}

/** Card of the status changes. */
export function eventsCard(statuses) {
  const item = (one) => el("li", {}, el("time", { datetime: one.time }, one.time ? dateTime(one.time, "medium") : "…"),
    el("span", { class: `badge ${one.status}` }, one.status), one.attempt && `attempt ${one.attempt}`, one.error && `${one.error.code}: ${one.error.detail}`);
  return card("Events", null, el("ol", { class: "timeline" }, statuses.map(item)));
}
