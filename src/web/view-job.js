// One job: progress, curves, results, configuration and data. It follows the job's events while it runs.

import { getJson, list, post, postJson, remove } from "./api.js";
import { el, replace, setText } from "./dom.js";
import { act, announce, confirmed, errorNotice } from "./feedback.js";
import { clock, dateTime, duration, number, percent, words } from "./format.js";
import { configurationCard } from "./job-configuration.js";
import { CurvesCard } from "./job-curves.js";
import { resultCards } from "./job-results.js";
import { formQuery } from "./job-request.js";
import { once } from "./polling.js";
import { MetricHistory, followEvents } from "./metric-history.js";
import { reportView } from "./report.js";
import { go, href } from "./router.js";

const ACTIVE = ["queued", "running", "paused"];

export async function show(place, { rest, query, signal }) {
  const id = rest[0];
  const state = { job: await getJson(`jobs/${id}`, { signal }), defaults: null, from: null, resultCount: 0, isFollowing: false };
  const history = new MetricHistory();
  const parts = createParts();
  const curves = new CurvesCard({ id, query, history, signal });
  const shown = { parts, state, history, query };
  const refresh = async () => {
    state.job = await getJson(`jobs/${id}`, { signal });
    showJob(shown, changed);
  };
  const changed = async () => {
    await refresh();
    parts.head.querySelector("button")?.focus();
    follow();
  };
  const callbacks = followCallbacks(shown, curves, refresh);
  // A job that is retried has events again.
  const follow = async () => {
    if (state.isFollowing) return;
    state.isFollowing = true;
    await followEvents(id, history, signal, callbacks);
    state.isFollowing = false;
  };
  replace(place, parts.head, parts.broken, parts.problems, parts.summary, curves.element, parts.results, parts.configuration, dataCard(state.job), parts.events);
  showJob(shown, changed);
  follow();
  const [defaults, from] = await Promise.all([readDefaults(state.job, signal), adapterOfVersion(state.job.from_adapter)]);
  Object.assign(state, { defaults, from });
  if (!signal.aborted) showJob(shown, changed);
}

function createParts() {
  const names = ["broken", "problems", "configuration", "events"];
  const parts = Object.fromEntries(names.map((name) => [name, el("div")]));
  return { ...parts, head: el("div", { class: "page-head" }), summary: el("div", { class: "stack" }), results: el("div", { class: "stack" }) };
}

function showJob({ parts, state, history, query }, changed) {
  const { job } = state;
  document.title = `${job.name ?? "Job"} (${job.status}) · espalier`;
  replace(parts.head, headParts(state, parts.problems, changed));
  replace(parts.summary, summaryParts(job));
  replace(parts.results, resultCards(job, history, query));
  replace(parts.configuration, configurationCard(job, state.defaults));
  replace(parts.events, eventsCard(job, history.statuses));
}

/** What happens when the job's events arrive. A replay brings many at once: each part is shown once. */
function followCallbacks({ parts, state, history, query }, curves, refresh) {
  const showResults = once(200, () => replace(parts.results, resultCards(state.job, history, query)));
  const showStatus = once(200, () => {
    const { status } = history.statuses.at(-1);
    replace(parts.events, eventsCard(state.job, history.statuses));
    if (status === state.job.status) return;
    announce(`The job is ${status}`);
    refresh().catch((error) => replace(parts.problems, errorNotice(error)));
  });
  return {
    onMetrics: () => {
      curves.update();
      const count = history.samples.size + history.rungs.size;
      if (count !== state.resultCount) showResults();
      state.resultCount = count;
    },
    onStatus: showStatus,
    onProgress: (progress) => {
      state.job.progress = progress;
      showProgress(parts.summary, state.job);
    },
    onBroken: (error) => replace(parts.broken, error && errorNotice(error)),
  };
}

/** The job that the server would make of the dataset alone, for comparison; with the method of this job where it chooses another. */
async function readDefaults(job, signal) {
  const request = { dataset_id: job.dataset_id, columns: job.options.columns, on_bad_rows: job.options.on_bad_rows };
  const resolve = async (body) => (await postJson("jobs?validate_only=true", body, { signal })).spec;
  try {
    const automatic = await resolve(request);
    if (automatic.task.type === job.task.type && automatic.method.type === job.method.type) return automatic;
    return await resolve({ ...request, task: job.task, method: { type: job.method.type } });
  } catch {
    // The dataset may be gone: then the configuration is shown without the comparison.
    return null;
  }
}

/** Id of the adapter that the job started from, if it still exists. */
async function adapterOfVersion(fromAdapter) {
  if (!fromAdapter) return null;
  const adapters = await list("adapters", 1000);
  return adapters.find((adapter) => adapter.version.endsWith(fromAdapter.version))?.id ?? null;
}

function headParts(state, problems, changed) {
  const { job } = state;
  const button = (label, action, className = "") => {
    const element = el("button", { type: "button", class: className, click: () => act(element, problems, () => action(element)) }, label);
    return element;
  };
  const change = (verb) => async () => {
    await post(`jobs/${job.id}/${verb}`);
    await changed();
  };
  const ask = async (verb, text, action) => (await confirmed(`${verb} this job?`, text, verb)) && action();
  const isActive = ACTIVE.includes(job.status);
  const clone = formQuery(job, state.defaults, state.from);
  return [
    el("h1", {}, job.name ?? `Job ${job.id.slice(0, 8)}`),
    el("span", { class: `badge ${job.status}` }, job.requested_action ? `${job.status}, ${job.requested_action} requested` : job.status),
    el("div", { class: "end" },
      ["queued", "running"].includes(job.status) && button("Pause", change("pause")),
      job.status === "paused" && button("Resume", change("resume"), "primary"),
      job.status === "failed" && button("Retry", change("retry"), "primary"),
      isActive && button("Cancel", () => ask("Cancel", "A cancelled job cannot be resumed.", change("cancel")), "danger"),
      job.adapter_id && el("a", { class: "button primary", href: href("playground", { model: ["base", job.adapter_id] }) }, "Try it"),
      job.adapter_id && el("a", { class: "button", href: href("new", { dataset: job.dataset_id, from: job.adapter_id, name: job.name }) }, "Train further"),
      el("a", { class: "button", href: href("new", clone) }, "Clone"),
      !isActive && button("Delete", () => ask("Delete", "The job and its curves are deleted. Its adapter stays.", async () => {
        await remove(`jobs/${job.id}`);
        go("jobs");
      }), "danger")),
  ];
}

function tile(name, ...value) {
  return el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value));
}

function summaryParts(job) {
  const progress = el("progress", { class: "job-progress", max: "1", value: "0", "aria-label": "Progress of the job" });
  const text = el("p", { class: "job-progress-text" });
  showProgressIn(progress, text, job);
  return [
    job.error && el("div", { class: "notice error", role: "alert" }, el("strong", {}, job.error.detail), el("span", { class: "small" }, job.error.code)),
    ACTIVE.includes(job.status) && el("div", { class: "card" }, progress, text),
    el("dl", { class: "tiles" },
      tile("Task", words(job.task.type)), tile("Method", words(job.method.type)),
      tile("Adapter", job.adapter_id ? el("a", { href: href(`adapters/${encodeURIComponent(job.name ?? job.adapter_id)}`) }, job.name ?? "without a name") : "–"),
      tile("Started", dateTime(job.started_at)),
      tile("Time", job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "–"),
      tile("Attempts", number(job.attempt))),
  ];
}

function showProgress(summary, job) {
  const progress = summary.querySelector(".job-progress");
  if (progress) showProgressIn(progress, summary.querySelector(".job-progress-text"), job);
}

function showProgressIn(element, text, job) {
  const { progress } = job;
  if (!progress) {
    const waiting = job.queue_position > 0 ? `${job.queue_position} jobs are before it` : "It starts as soon as a worker is free";
    setText(text, job.status === "queued" ? waiting : "Preparing …");
    return;
  }
  element.value = progress.step / progress.total_steps;
  setText(text, [
    `${percent(element.value, 0)}: step ${number(progress.step)} of ${number(progress.total_steps)}`,
    `epoch ${number(progress.epoch, 1)}`, `${number(progress.examples_per_second, 0)} examples/s`,
    job.status === "running" ? `${duration(progress.eta_seconds)} left` : job.status,
  ].join(" · "));
}

/** Status changes. The server keeps the times of the first start and of the end. */
function eventsCard(job, statuses) {
  const last = statuses.length - 1;
  const started = statuses.findIndex((one) => one.status === "running");
  const time = (index) => (index === 0 ? job.created_at : index === started ? job.started_at : index === last && job.finished_at ? job.finished_at : null);
  const item = (one, index) => el("li", {}, el("time", {}, time(index) ? clock(time(index)) : "–"),
    el("span", { class: `badge ${one.status}` }, one.status), one.attempt && `attempt ${one.attempt}`, one.error && `${one.error.code}: ${one.error.detail}`);
  return el("section", { class: "card", "aria-label": "Events" }, el("h2", {}, "Events"), el("ol", { class: "timeline" }, statuses.map(item)));
}

function dataCard(job) {
  const title = job.dataset?.file_name ?? "Dataset";
  return el("section", { class: "card", "aria-label": "Data" },
    el("div", { class: "card-head" }, el("h2", {}, "Data"), el("a", { href: href(`datasets/${job.dataset_id}`) }, title)),
    job.dataset && el("details", {}, el("summary", {}, "Report"), reportView(job.dataset.report, job.hyperparameters.max_length)));
}
