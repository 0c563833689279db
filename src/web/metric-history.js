// Metrics of a job by split and step, read from its events.

import { send, serverEvents } from "./api.js";

export class MetricHistory {
  constructor() {
    /** Split → metric → steps in their order, and values. A resumed job repeats steps; the later value counts. */
    this.splits = { train: new Map(), validation: new Map() };
    /** Status changes, in order. */
    this.statuses = [];
    /** Generated samples by step: `{step, texts}`. */
    this.samples = new Map();
    /** Results of the rungs of successive halving, by step. */
    this.rungs = new Map();
    this.lastId = 0;
  }

  add({ split, step, metrics }) {
    if (split === "samples") this.samples.set(step, metrics.texts);
    else if (split === "race") this.rungs.set(step, metrics);
    else this.addNumbers(split, step, metrics);
  }

  addNumbers(split, step, metrics) {
    const series = (this.splits[split] ??= new Map());
    for (const [name, value] of Object.entries(metrics)) {
      if (typeof value !== "number") continue;
      if (!series.has(name)) series.set(name, { steps: [], values: [] });
      insert(series.get(name), step, value);
    }
  }

  /** Names of all metrics, the loss first. */
  names() {
    const names = new Set([...this.splits.validation.keys(), ...this.splits.train.keys()]);
    return [...names].sort((a, b) => (a === "loss" ? -1 : b === "loss" ? 1 : a.localeCompare(b)));
  }

  /** Steps and values of one metric, in the order of the steps. */
  series(split, name) {
    return this.splits[split]?.get(name) ?? { steps: [], values: [] };
  }

  csv() {
    const lines = ["split,step,metric,value"];
    for (const split of Object.keys(this.splits)) {
      for (const name of this.splits[split].keys()) {
        const { steps, values } = this.series(split, name);
        steps.forEach((step, index) => lines.push(`${split},${step},${name},${values[index]}`));
      }
    }
    return `${lines.join("\n")}\n`;
  }
}

/** Puts a value at its step. New steps are the last ones, but for a job that resumed. */
function insert({ steps, values }, step, value) {
  let index = steps.length;
  while (index > 0 && steps[index - 1] > step) index -= 1;
  if (index > 0 && steps[index - 1] === step) {
    values[index - 1] = value;
    return;
  }
  steps.splice(index, 0, step);
  values.splice(index, 0, value);
}

/** Reads a job's events into `history` until the job is finished; reconnects where the stream breaks. */
export async function followEvents(id, history, signal, { onMetrics, onStatus, onProgress, onBroken }) {
  while (!signal.aborted) {
    try {
      const response = await send(`jobs/${id}/events?after=${history.lastId}`, { headers: { accept: "text/event-stream" }, signal });
      onBroken(null);
      if (response.status === 204) return;
      for await (const event of serverEvents(response)) {
        if (event.id) history.lastId = Number(event.id);
        const data = JSON.parse(event.data);
        if (event.event === "metrics") {
          history.add(data);
          onMetrics();
        } else if (event.event === "status") {
          history.statuses.push(data);
          onStatus(data);
        } else if (event.event === "progress") onProgress(data);
      }
    } catch (error) {
      if (signal.aborted) return;
      onBroken(error);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Reads the events after the last one that `history` has, as they are now. */
export async function readNewEvents(id, history, signal) {
  for (;;) {
    const response = await send(`jobs/${id}/events?after=${history.lastId}`, { headers: { accept: "application/json" }, signal });
    const page = await response.json();
    for (const event of page.data) if (event.kind === "metrics") history.add(event.data);
    if (page.data.length > 0) history.lastId = page.data[page.data.length - 1].sequence;
    if (!page.next || page.data.length === 0) return;
  }
}

/** All metrics of another job, for an overlay. */
export async function readHistory(id, signal) {
  const history = new MetricHistory();
  await readNewEvents(id, history, signal);
  return history;
}
