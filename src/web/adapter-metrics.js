// Metrics of adapters for tables.

import { number, words } from "./format.js";

const PREFERRED = ["micro_f1", "f1", "accuracy", "spearman", "recall_at_1", "margin", "perplexity", "loss"];

/** The primary metric on the validation examples, as text. */
export function mainMetric({ metrics }) {
  const validation = metrics?.validation ?? {};
  const name = PREFERRED.find((metric) => typeof validation[metric] === "number");
  return name ? `${words(name)} ${number(validation[name], 3)}` : "";
}

/** Names of the numbers in the validation metrics of any of the adapters. */
export function metricNames(adapters) {
  return [...new Set(adapters.flatMap(({ metrics }) =>
    Object.entries(metrics?.validation ?? {}).filter(([name, value]) => typeof value === "number" && name !== "examples").map(([name]) => name)))];
}
