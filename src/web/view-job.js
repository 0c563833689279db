// One job: progress, curves, results, configuration and data. It follows the job's events while it runs.

import { encoded, getJson, list, postJson } from "./api.js";
import { card } from "./cards.js";
import { credential, may } from "./credential.js";
import { el, replace } from "./dom.js";
import { announce, errorNotice, focusHeading, showPollingError } from "./feedback.js";
import { jobTitle } from "./format.js";
import { configurationCard } from "./job-configuration.js";
import { CurvesCard } from "./job-curves.js";
import { headKey, headParts } from "./job-head.js";
import { historyCards, resultCards } from "./job-results.js";
import { eventsCard, showProgress, summaryParts } from "./job-summary.js";
import { MetricHistory, followEvents, readTimes } from "./metric-history.js";
import { patch } from "./patch.js";
import { every, once } from "./polling.js";
import { reportView } from "./report.js";
import { href } from "./router.js";

const QUEUE_INTERVAL = 5000;

export async function show(place, view) {
  const job = await getJson(encoded`jobs/${view.rest[0]}`, { signal: view.signal });
  if (!view.signal.aborted) new JobView(view, job).start(place);
}

class JobView {
  constructor(view, job) {
    Object.assign(this, { view, job, history: new MetricHistory(), shown: {}, isFollowing: false });
    /** Defaults for the dataset, or null; adapter that the job started from, once it is known: `{id}`, null if it is deleted. */
    Object.assign(this, { defaults: null, source: null });
    const names = ["broken", "queueProblems", "problems", "summary", "results", "historyResults", "configuration", "events"];
    this.parts = Object.fromEntries(names.map((name) => [name, el("div", { class: "stack" })]));
    this.parts.head = el("div", { class: "page-head" });
    this.curves = new CurvesCard({ id: job.id, view, history: this.history });
    // A replay brings many events at once: each part is shown once.
    this.showHistory = once(200, () => this.showHistoryParts());
  }

  start(place) {
    const { parts, view: { signal } } = this;
    replace(place, parts.head, parts.broken, parts.queueProblems, parts.problems, parts.summary, this.curves.element, parts.results, parts.historyResults,
      parts.configuration, dataCard(this.job), parts.events);
    this.show();
    this.follow();
    every(() => QUEUE_INTERVAL, signal, () => this.refreshQueue(), (error) => showPollingError(parts.queueProblems, error));
    this.readOrigin();
  }

  async refresh() {
    this.job = await getJson(encoded`jobs/${this.job.id}`, { signal: this.view.signal });
    if (!this.view.signal.aborted) this.show();
  }

  /** The place in the queue changes without an event. */
  async refreshQueue() {
    if (this.job.status === "queued") await this.refresh();
  }

  show() {
    const { job, parts, view } = this;
    document.title = `${jobTitle(job)} (${job.status}) · espalier`;
    this.showHead();
    patch(parts.summary, summaryParts(job));
    this.showOnce("results", [job.metrics, job.labels], () => resultCards(job, view));
    this.showConfiguration();
    this.showHistory();
  }

  showHead() {
    const { parts } = this;
    const hasFocus = parts.head.contains(document.activeElement);
    const changed = async () => {
      await this.refresh();
      this.follow();
    };
    this.showOnce("head", headKey(this), () => headParts(this, parts.problems, changed));
    if (hasFocus && !parts.head.contains(document.activeElement)) focusHeading();
  }

  showConfiguration() {
    const { job, defaults, source } = this;
    const isSourceDeleted = source !== null && source.id === null;
    this.showOnce("configuration", [job.status, defaults, source], () => configurationCard(job, defaults, isSourceDeleted));
  }

  showHistoryParts() {
    const { parts, history, job } = this;
    patch(parts.historyResults, historyCards(job, history));
    patch(parts.events, eventsCard(history.statuses));
  }

  /** Builds a part where its data changed: listeners and focus are kept otherwise. */
  showOnce(name, data, build) {
    const key = JSON.stringify(data);
    if (this.shown[name] === key) return;
    this.shown[name] = key;
    replace(this.parts[name], build());
  }

  /** Follows the events. A job that is retried has events again. */
  async follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    await followEvents(this.job.id, this.history, this.view.signal, this.callbacks());
    this.isFollowing = false;
  }

  callbacks() {
    const { parts, view: { signal } } = this;
    const showStatus = once(200, () => this.followStatus());
    return {
      onMetrics: () => {
        this.curves.update();
        this.showHistory();
      },
      onStatus: showStatus,
      onProgress: (progress) => {
        this.job.progress = progress;
        showProgress(parts.summary, this.job);
      },
      onBroken: (error, isRepeated) => {
        if (isRepeated || !error) showPollingError(parts.broken, error);
        else if (!signal.aborted) replace(parts.broken, errorNotice(error));
      },
    };
  }

  async followStatus() {
    const { history, parts, view: { signal } } = this;
    this.showHistoryParts();
    const { status } = history.statuses.at(-1);
    try {
      if (status !== this.job.status) {
        announce(`The job is ${status}`);
        await this.refresh();
      }
      await readTimes(this.job.id, history.statuses, signal);
      this.showHistoryParts();
    } catch (error) {
      if (!signal.aborted) replace(parts.problems, errorNotice(error));
    }
  }

  /** Reads the defaults and the adapter that the job started from. */
  async readOrigin() {
    const { job, parts, view: { signal } } = this;
    try {
      const [defaults, id] = await Promise.all([readDefaults(job, signal), adapterOfVersion(job.from_adapter, signal)]);
      Object.assign(this, { defaults, source: id === undefined ? null : { id } });
    } catch (error) {
      if (!signal.aborted) replace(parts.problems, errorNotice(error));
    }
    if (!signal.aborted) this.show();
  }
}

/** The job that the server makes of only the dataset, for comparison; with the method of this job where it chooses another. Null
 * where the dataset is deleted. */
async function readDefaults(job, signal) {
  const request = { dataset_id: job.dataset_id, columns: job.options.columns, on_bad_rows: job.options.on_bad_rows };
  const resolve = async (body) => (await postJson("jobs?validate_only=true", body, { signal })).spec;
  try {
    const automatic = await resolve(request);
    if (automatic.task.type === job.task.type && automatic.method.type === job.method.type) return automatic;
    return await resolve({ ...request, task: job.task, method: { type: job.method.type } });
  } catch {
    return null;
  }
}

/** Id of the adapter that the job started from; null where it started from none or the adapter is deleted, undefined where the key does
 * not see all adapters. */
async function adapterOfVersion(fromAdapter, signal) {
  if (!fromAdapter) return null;
  const adapters = may("adapters:read") ? await list("adapters", 1000, { signal }) : [];
  const found = adapters.find((adapter) => adapter.version.endsWith(fromAdapter.version));
  const seesAll = may("adapters:read") && !credential().adapters;
  return found?.id ?? (seesAll ? null : undefined);
}

function dataCard(job) {
  const title = job.dataset?.file_name ?? "Dataset";
  return card("Data", el("a", { href: href(`datasets/${job.dataset_id}`) }, title),
    job.dataset && el("details", {}, el("summary", {}, "Report"), reportView(job.dataset.report, job.hyperparameters.max_length)));
}
