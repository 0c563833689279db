// Curves of a job: any metric of training and validation, smoothed or logarithmic, with another job over it.

import { list } from "./api.js";
import { card } from "./cards.js";
import { el, field, replace, scrollable, select, table } from "./dom.js";
import { announce, errorNotice, saveFile } from "./feedback.js";
import { jobTitle, number, shortId, words } from "./format.js";
import { Chart, joined, smoothed } from "./chart.js";
import { once } from "./polling.js";
import { patch } from "./patch.js";
import { readHistory } from "./metric-history.js";
import { setQuery } from "./router.js";

const TABLE_ROWS = 100;
const SMOOTHING = [["", "none"], ["0.6", "light"], ["0.85", "medium"], ["0.95", "strong"]];

/** Card with the curves; its choices are parameters of the address. */
export class CurvesCard {
  constructor({ id, view, history }) {
    const { query, signal } = view;
    Object.assign(this, { id, view, query, history, signal, chart: null, overlay: null, lastOverlay: 0, otherJobs: [] });
    this.plot = el("div", { class: "chart", hidden: true });
    this.waiting = el("p", { class: "muted" }, "Curves appear with the first steps.");
    this.tools = el("div", { class: "chart-tools" });
    this.values = el("div");
    this.problems = el("div");
    this.element = card("Curves", "Drag to zoom, double-click to reset", this.tools, this.problems, this.waiting, this.plot, this.values);
    // Many events arrive at once where a stream is replayed: they are drawn once.
    this.update = once(200, () => this.draw());
    document.addEventListener("themechange", this.update, { signal });
    signal.addEventListener("abort", () => this.chart?.destroy());
  }

  chosen(name, fallback = "") {
    return this.query.get(name) ?? fallback;
  }

  set(name, value) {
    if (value) this.query.set(name, value);
    else this.query.delete(name);
    setQuery(this.view);
    this.draw();
  }

  draw() {
    const names = this.history.names();
    if (this.signal.aborted || names.length === 0) return;
    this.waiting.hidden = true;
    this.plot.hidden = false;
    if (!this.metric) this.showTools();
    const metric = names.includes(this.chosen("metric")) ? this.chosen("metric") : names[0];
    this.showMetrics(names, metric);
    this.chart ??= new Chart(this.plot);
    this.chart.draw(this.seriesOf(metric), this.chosen("log") === "1");
    patch(this.values, valuesTable(this.history, metric));
  }

  /** Train and validation of this job, then those of the other. */
  seriesOf(metric) {
    const strength = Number(this.chosen("smooth", "0"));
    const of = (source, split, label, isOverlay) => {
      const { steps, values } = source.series(split, metric);
      return steps.length ? [{ label, steps, values: strength ? smoothed(values, strength) : values, isOverlay }] : [];
    };
    const splits = ["train", "validation"];
    const overlay = this.overlay ? splits.flatMap((split) => of(this.overlay, split, `${split}, ${this.nameOfOther()}`, true)) : [];
    return [...splits.flatMap((split) => of(this.history, split, split, false)), ...overlay];
  }

  /** More metrics appear while the job runs. */
  showMetrics(names, metric) {
    patch(this.metric, names.map((name) => el("option", { value: name }, words(name))));
    if (this.metric.value !== metric) this.metric.value = metric;
  }

  showTools() {
    const log = el("input", { type: "checkbox", checked: this.chosen("log") === "1", change: () => this.set("log", log.checked ? "1" : "") });
    const smoothing = select(SMOOTHING, this.chosen("smooth"), (value) => this.set("smooth", value));
    this.metric = select([], "", (value) => this.set("metric", value));
    const other = select([["", "none"]], "", async (value) => {
      if (await this.showOverlay(value)) this.set("with", value);
    });
    replace(this.tools, field("Metric", this.metric), field("Smoothing", smoothing), field("Compare with", other),
      el("label", { class: "check" }, log, "Logarithmic"),
      el("button", { type: "button", click: () => saveFile(`${this.id}.csv`, this.history.csv(), "text/csv") }, "CSV"),
      el("button", { type: "button", click: async () => saveFile(`${this.id}.png`, await this.chart.toBlob()) }, "PNG"));
    this.offerOthers(other);
  }

  async offerOthers(other) {
    const jobs = await list("jobs", 100, { signal: this.signal }).catch(() => []);
    this.otherJobs = jobs.filter((one) => one.id !== this.id);
    for (const job of this.otherJobs) {
      other.append(el("option", { value: job.id }, `${jobTitle(job)}, ${words(job.method.type)}, ${job.status}`));
    }
    other.value = this.chosen("with");
    if (!this.chosen("with") || this.overlay) return;
    if (await this.showOverlay(this.chosen("with"))) this.draw();
  }

  nameOfOther() {
    const id = this.chosen("with");
    const job = this.otherJobs.find((one) => one.id === id);
    return job ? `${jobTitle(job)} (${words(job.method.type)})` : shortId(id);
  }

  /** Reads the curves of another job; returns whether no other choice was made meanwhile. */
  async showOverlay(other) {
    this.lastOverlay += 1;
    const mine = this.lastOverlay;
    const isLast = () => mine === this.lastOverlay && !this.signal.aborted;
    this.overlay = null;
    replace(this.problems);
    try {
      const overlay = other ? await readHistory(other, this.signal) : null;
      if (isLast()) this.overlay = overlay;
      if (isLast() && other) announce("The curves of the other job are drawn");
    } catch (error) {
      if (isLast()) replace(this.problems, errorNotice(error));
    }
    return isLast();
  }
}

/** Last values of one metric by step, for readers who do not see the curves. */
function valuesTable(history, metric) {
  const splits = ["train", "validation"].filter((split) => history.series(split, metric).steps.length > 0);
  const last = splits.map((split) => {
    const { steps, values } = history.series(split, metric);
    return { steps: steps.slice(-TABLE_ROWS), values: values.slice(-TABLE_ROWS) };
  });
  const [steps, ...columns] = joined(last);
  const rows = steps.map((step, index) => [number(step), ...columns.map((values) => number(values[index]))]).slice(-TABLE_ROWS);
  const headings = ["Step", ...splits.map((split) => `${words(metric)} (${split})`)].map((label) => ({ label, number: true }));
  return el("details", {}, el("summary", {}, `Values of ${words(metric)}`), scrollable("Values by step", table(headings, rows), "scroll tall"));
}
