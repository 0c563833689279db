// Metrics of a job by split and step, read from its events.

import { encoded, send, serverEvents } from "./api.js";

const FIRST_DELAY = 1000;
const LONGEST_DELAY = 30_000;

export class MetricHistory {
  constructor() {
    /** Split → metric → steps in their order, and values. A resumed job repeats steps; the later value counts. */
    this.splits = { train: new Map(), validation: new Map() };
    /** Status changes, in order: `{sequence, status, time}`; the time is read afterwards. */
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

/** Puts a value at its step. Steps are appended, except after a resume. */
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

/** Reads a job's events into `history` until the job is finished; reconnects where the stream breaks. `onBroken` gets the error and
 * whether the request is repeated, or null once the stream is read. */
export async function followEvents(id, history, signal, callbacks) {
  let delay = FIRST_DELAY;
  while (!signal.aborted) {
    try {
      const response = await send(encoded`jobs/${id}/events?after=${history.lastId}`, { headers: { accept: "text/event-stream" }, signal });
      callbacks.onBroken(null);
      delay = FIRST_DELAY;
      if (response.status === 204) return;
      for await (const event of serverEvents(response)) addEvent(event, history, callbacks);
    } catch (error) {
      if (signal.aborted) return;
      const isRepeated = mayBeRepeated(error);
      callbacks.onBroken(error, isRepeated);
      if (!isRepeated) return;
    }
    await new Promise((resolve) => setTimeout(resolve, delay));
    delay = Math.min(2 * delay, LONGEST_DELAY);
  }
}

/** Returns whether the same request may succeed later. */
function mayBeRepeated({ status }) {
  const isRefused = status >= 400 && status < 500;
  return !isRefused || [401, 408, 429].includes(status);
}

function addEvent({ id, event, data: text }, history, { onMetrics, onStatus, onProgress }) {
  if (id) history.lastId = Number(id);
  const data = JSON.parse(text);
  if (event === "metrics") {
    history.add(data);
    onMetrics();
  } else if (event === "status") {
    history.statuses.push({ ...data, sequence: Number(id) });
    onStatus();
  } else if (event === "progress") onProgress(data);
}

/** Reads the times of the status changes that have none: the stream does not send them. */
export async function readTimes(id, statuses, signal) {
  for (const status of statuses) {
    if (status.time) continue;
    const page = await readPage(id, status.sequence - 1, signal);
    const times = new Map(page.data.map((event) => [event.sequence, event.created_at]));
    for (const one of statuses) one.time ??= times.get(one.sequence);
  }
}

async function readPage(id, after, signal) {
  const response = await send(encoded`jobs/${id}/events?after=${after}`, { headers: { accept: "application/json" }, signal });
  return response.json();
}

/** Reads the events after the last one that `history` has, as they are now. */
export async function readNewEvents(id, history, signal) {
  for (;;) {
    const page = await readPage(id, history.lastId, signal);
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
