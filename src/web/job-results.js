// Results of a job: metrics on the validation examples, per class, the confusion matrix, samples, and the rungs of successive halving.

import { el, scrollable, table } from "./dom.js";
import { number, percent, words } from "./format.js";

const MAX_MATRIX_LABELS = 60;
const PARTS = ["per_class", "confusion_matrix", "confidence_intervals", "calibration"];

/** Cards of what the job has. */
export function resultCards(job, history) {
  const metrics = job.metrics ?? {};
  const validation = metrics.validation ?? {};
  return [
    Object.keys(validation).length > 0 && metricsCard(metrics, validation),
    validation.per_class?.length > 0 && perClassCard(validation.per_class),
    validation.confusion_matrix?.length > 0 && confusionCard(validation.confusion_matrix, job.labels),
    (history.rungs.size > 0 || metrics.race) && raceCard(metrics.race, history, job),
    history.samples.size > 0 && samplesCard(history.samples),
  ].filter(Boolean);
}

function card(title, note, ...content) {
  return el("section", { class: "card", "aria-label": title },
    el("div", { class: "card-head" }, el("h2", {}, title), note && el("span", { class: "muted small" }, note)), content);
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
  const main = Object.entries(validation).filter(([name, value]) => typeof value === "number" && !PARTS.includes(name));
  const tiles = main.map(([name, value]) => el("div", { class: "tile" },
    el("dt", {}, words(name)),
    el("dd", {}, number(value), intervals[name] && el("div", { class: "small muted" }, `95 %: ${number(intervals[name][0], 3)} to ${number(intervals[name][1], 3)}`))));
  const others = [...numericEntries(validation.calibration ?? {}, "calibration: "), ...numericEntries(metrics).filter(([name]) => !name.startsWith("validation") && !name.startsWith("race"))];
  return card("Results", "On the validation examples",
    el("dl", { class: "tiles" }, tiles),
    others.length > 0 && el("dl", { class: "settings-list" }, others.map(([name, value]) => [el("dt", {}, name), el("dd", {}, number(value))])));
}

function perClassCard(classes) {
  const headings = ["Label", ...["Precision", "Recall", "F1", "Examples"].map((label) => ({ label, number: true }))];
  const rows = [...classes].sort((a, b) => a.f1 - b.f1)
    .map((one) => [one.label, percent(one.precision), percent(one.recall), percent(one.f1), number(one.support)]);
  return card("Per label", "The hardest first", scrollable("Metrics per label", table(headings, rows), "scroll tall"));
}

function confusionCard(matrix, labels) {
  if (matrix.length > MAX_MATRIX_LABELS || matrix.length !== labels.length) return null;
  const level = (count, total) => (count === 0 ? 0 : Math.min(4, 1 + Math.floor((count / Math.max(1, total)) * 3.99)));
  const rows = matrix.map((counts, row) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return el("tr", {}, el("th", { scope: "row", title: labels[row] }, labels[row]),
      counts.map((count, column) => el("td", {
        class: `level-${level(count, total)}${count > 0 && row !== column ? " wrong" : ""}`,
        title: `${labels[row]} predicted as ${labels[column]}: ${count}`,
      }, count || "·")));
  });
  const heat = el("table", { class: "heat" }, el("caption", { class: "visually-hidden" }, "Confusion matrix: rows are true labels, columns are predicted labels"),
    el("thead", {}, el("tr", {}, el("td"), labels.map((label) => el("th", { scope: "col", title: label }, el("span", {}, label))))), el("tbody", {}, rows));
  return card("Confusion matrix", "Rows: true labels. Columns: predicted labels. Outlined: mistakes.", scrollable("Confusion matrix", heat));
}

/** Candidates by rung; what a rung dropped ends there. */
function raceCard(race, history, job) {
  const rungs = [...history.rungs].sort((a, b) => a[0] - b[0]).map(([, rung]) => rung);
  const cell = (rung, candidate) => {
    const found = rung.candidates.find((one) => one.candidate === candidate);
    if (!found) return "";
    return [number(found[rung.metric]), " ", found.dropped ? el("span", { class: "badge" }, "dropped") : el("span", { class: "badge succeeded" }, "stays")];
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
