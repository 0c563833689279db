// Results of a job: metrics on the validation examples, per class, samples, and the rungs of successive halving.

import { calibrationCard } from "./calibration.js";
import { confusionCard } from "./confusion-matrix.js";
import { card, tile } from "./cards.js";
import { el, scrollable, table } from "./dom.js";
import { number, percent, words } from "./format.js";

/** Cards of the job's metrics. */
export function resultCards(job, view) {
  const metrics = job.metrics ?? {};
  const validation = metrics.validation ?? {};
  return [
    Object.keys(validation).length > 0 && metricsCard(metrics, validation),
    validation.per_class?.length > 0 && perClassCard(validation.per_class),
    confusionCard(job, validation, view),
    calibrationCard(validation),
  ];
}

/** Cards of what the job's events have, beside metrics. */
export function historyCards(job, history) {
  const race = job.metrics?.race;
  return [
    (history.rungs.size > 0 || race) && raceCard(race, history, job),
    history.samples.size > 0 && samplesCard(history.samples),
  ];
}

/** Numbers of an object, as name and value; nested objects become `outer inner`. */
function numericEntries(values, prefix = "") {
  return Object.entries(values).flatMap(([name, value]) => {
    if (typeof value === "number") return [[prefix + words(name), value]];
    if (value && typeof value === "object" && !Array.isArray(value)) return numericEntries(value, `${prefix}${words(name)}: `);
    return [];
  });
}

function metricsCard(metrics, validation) {
  const intervals = validation.confidence_intervals ?? {};
  const main = Object.entries(validation).filter(([, value]) => typeof value === "number");
  const interval = (name) => intervals[name] && el("div", { class: "small muted" }, `95 %: ${number(intervals[name][0], 3)} to ${number(intervals[name][1], 3)}`);
  const tiles = main.map(([name, value]) => tile(words(name), number(value), interval(name)));
  const others = numericEntries(metrics).filter(([name]) => !name.startsWith("validation") && !name.startsWith("race"));
  return card("Results", "On the validation examples",
    el("dl", { class: "tiles" }, tiles),
    others.length > 0 && el("dl", { class: "settings-list" }, others.map(([name, value]) => [el("dt", {}, name), el("dd", {}, number(value))])));
}

function perClassCard(classes) {
  const headings = ["Label", ...["Precision", "Recall", "F1", "Examples"].map((label) => ({ label, number: true }))];
  const rows = [...classes].sort((a, b) => a.f1 - b.f1)
    .map((one) => [one.label, percent(one.precision), percent(one.recall), percent(one.f1), number(one.support)]);
  return card("Per label", "Sorted by F1, lowest first", scrollable("Metrics per label", table(headings, rows), "scroll tall"));
}

/** Candidates by rung; what a rung dropped ends there. */
function raceCard(race, history, job) {
  const rungs = [...history.rungs].sort((a, b) => a[0] - b[0]).map(([, rung]) => rung);
  const cell = (rung, candidate) => {
    const found = rung.candidates.find((one) => one.candidate === candidate);
    if (!found) return "";
    return [number(found[rung.metric]), " ", found.dropped ? el("span", { class: "badge" }, "dropped") : el("span", { class: "badge succeeded" }, "kept")];
  };
  const headings = ["Candidate", ...rungs.map((rung, index) => `Rung ${index + 1}: ${words(rung.metric)} after ${number(rung.candidates[0]?.examples)} examples`)];
  const rows = (job.method.candidates ?? []).map((candidate, index) => [`${index}: ${words(candidate.type)}`, ...rungs.map((rung) => cell(rung, index))]);
  const winner = race && `Winner: ${race.winner}: ${words(race.method)}`;
  return card("Successive halving", winner, scrollable("Rungs", table(headings, rows)));
}

function samplesCard(samples) {
  const rows = [...samples].sort((a, b) => b[0] - a[0]).map(([step, texts]) =>
    [number(step), el("div", { class: "stack" }, texts.map((text) => el("div", { class: "bubble" }, text)))]);
  return card("Samples", "The newest first", scrollable("Generated samples", table([{ label: "Step", number: true }, "Texts"], rows), "scroll tall"));
}
