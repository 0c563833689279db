// Limits of keys and owners: as text, and as fields of a form.

import { el, field } from "./dom.js";
import { bytes, number } from "./format.js";

const LIMITS = {
  requests_per_minute: { label: "Requests per minute", hint: "Requests other than GET, in each process", least: 1, text: (value) => `${number(value)} requests/min` },
  tokens_per_minute: { label: "Tokens per minute", hint: "Of inputs and generated text, in each process", least: 1, text: (value) => `${number(value)} tokens/min` },
  concurrent_requests: { label: "Concurrent requests", hint: "In flight, in each process", least: 1, text: (value) => `${number(value)} concurrent` },
  queued_jobs: { label: "Queued jobs", hint: "In all processes", least: 0, text: (value) => `${number(value)} queued jobs` },
  running_jobs: { label: "Running jobs", hint: "In all processes", least: 1, text: (value) => `${number(value)} running jobs` },
  dataset_bytes: { label: "Bytes of datasets", hint: "All datasets together", least: 0, text: (value) => `${bytes(value)} of datasets` },
  dataset_rows: { label: "Rows of datasets", hint: "All datasets together", least: 0, text: (value) => `${number(value)} rows` },
  adapter_bytes: { label: "Bytes of adapters", hint: "All adapters together", least: 0, text: (value) => `${bytes(value)} of adapters` },
};
export const REQUEST_LIMITS = ["requests_per_minute", "tokens_per_minute", "concurrent_requests"];
export const OWNER_LIMITS = Object.keys(LIMITS);

/** The limits that are set, as text. */
export function limitsText(limits) {
  return OWNER_LIMITS.filter((name) => limits[name] != null).map((name) => LIMITS[name].text(limits[name])).join(", ") || "none";
}

/** Fields of limits, of which empty ones are not set: their elements, their controls by name, and the function that reads them. */
export function limitFields(names, values, placeholderOf) {
  const controls = Object.fromEntries(names.map((name) => [name, el("input", {
    type: "number", min: LIMITS[name].least, step: "1", value: values[name] ?? "", placeholder: placeholderOf(name),
  })]));
  return {
    elements: names.map((name) => field(LIMITS[name].label, controls[name], { hint: LIMITS[name].hint })),
    controls,
    read: () => Object.fromEntries(names.filter((name) => controls[name].value !== "").map((name) => [name, Number(controls[name].value)])),
  };
}
