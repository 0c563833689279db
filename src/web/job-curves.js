// Curves of a job: any metric of training and validation, smoothed or logarithmic, with another job over it.

import { list } from "./api.js";
import { el, field, replace, scrollable, select, table } from "./dom.js";
import { announce, errorNotice, saveFile } from "./feedback.js";
import { number, words } from "./format.js";
import { Chart, smoothed } from "./chart.js";
import { once } from "./polling.js";
import { readHistory } from "./metric-history.js";
import { setQuery } from "./router.js";

const SMOOTHING = [["", "none"], ["0.6", "light"], ["0.85", "medium"], ["0.95", "strong"]];

/** Card with the curves; its choices are parameters of the address. */
export class CurvesCard {
  constructor({ id, query, history, signal }) {
    Object.assign(this, { id, query, history, signal, chart: null, overlay: null, names: "", otherJobs: [] });
    this.plot = el("div", { class: "chart", hidden: true });
    this.waiting = el("p", { class: "muted" }, "Curves appear with the first steps.");
    this.tools = el("div", { class: "chart-tools" });
    this.values = el("div");
    this.problems = el("div");
    this.element = el("section", { class: "card", "aria-label": "Curves" },
      el("div", { class: "card-head" }, el("h2", {}, "Curves"), el("span", { class: "muted small" }, "Drag to zoom, double-click to reset")),
      this.tools, this.problems, this.waiting, this.plot, this.values);
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
    setQuery(this.query);
    this.draw();
  }

  draw() {
    const names = this.history.names();
    if (this.signal.aborted || names.length === 0) return;
    this.waiting.hidden = true;
    this.plot.hidden = false;
    if (this.names !== names.join()) {
      this.names = names.join();
      this.showTools(names);
    }
    const metric = names.includes(this.chosen("metric")) ? this.chosen("metric") : names[0];
    this.chart ??= new Chart(this.plot);
    this.chart.draw(this.seriesOf(metric), this.chosen("log") === "1");
    replace(this.values, valuesTable(this.history, metric));
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

  showTools(names) {
    const log = el("input", { type: "checkbox", checked: this.chosen("log") === "1", change: () => this.set("log", log.checked ? "1" : "") });
    const smoothing = select(SMOOTHING, this.chosen("smooth"), (value) => this.set("smooth", value));
    const metric = select(names.map((name) => [name, words(name)]), this.chosen("metric", names[0]), (value) => this.set("metric", value));
    const other = select([["", "none"]], "", async (value) => {
      await this.showOverlay(value);
      this.set("with", value);
    });
    replace(this.tools, field("Metric", metric), field("Smoothing", smoothing), field("Compare with", other),
      el("label", { class: "check" }, log, "Logarithmic"),
      el("button", { type: "button", click: () => saveFile(`${this.id}.csv`, this.history.csv(), "text/csv") }, "CSV"),
      el("button", { type: "button", click: async () => saveFile(`${this.id}.png`, await this.chart.toBlob()) }, "PNG"));
    this.offerOthers(other);
  }

  async offerOthers(other) {
    const jobs = await list("jobs", 100).catch(() => []);
    this.otherJobs = jobs.filter((one) => one.id !== this.id);
    for (const job of this.otherJobs) {
      other.append(el("option", { value: job.id }, `${job.name ?? job.id.slice(0, 8)}, ${words(job.method.type)}, ${job.status}`));
    }
    other.value = this.chosen("with");
    if (!this.chosen("with") || this.overlay) return;
    await this.showOverlay(this.chosen("with"));
    this.draw();
  }

  nameOfOther() {
    const id = this.chosen("with");
    const job = this.otherJobs.find((one) => one.id === id);
    return job ? `${job.name ?? id.slice(0, 8)} (${words(job.method.type)})` : id.slice(0, 8);
  }

  async showOverlay(other) {
    this.overlay = null;
    replace(this.problems);
    if (!other) return;
    try {
      this.overlay = await readHistory(other, this.signal);
      announce("The curves of the other job are drawn");
    } catch (error) {
      if (!this.signal.aborted) replace(this.problems, errorNotice(error));
    }
  }
}

/** Values of one metric by step, for readers who do not see the curves. */
function valuesTable(history, metric) {
  const validation = history.series("validation", metric);
  if (!validation.steps.length) return null;
  const rows = validation.steps.map((step, index) => [number(step), number(validation.values[index])]).slice(-100);
  const values = table([{ label: "Step", number: true }, { label: `${words(metric)} (validation)`, number: true }], rows);
  const isOpen = document.getElementById("curve-values")?.open ?? false;
  return el("details", { id: "curve-values", open: isOpen }, el("summary", {}, `Validation values of ${words(metric)}`), scrollable("Values by step", values, "scroll tall"));
}
