// Validation report of a dataset: rows, labels, lengths, warnings, and how the columns are read.

import { tile } from "./cards.js";
import { el, svg } from "./dom.js";
import { number, plural } from "./format.js";

const SHOWN_LABELS = 8;

/** One row of a bar chart: name, bar, value. */
export function bar(name, share, value) {
  const label = `${name}: ${value}`;
  return el("div", { class: "bar" },
    el("span", { class: "name", title: name }, name),
    el("progress", { max: "1", value: String(Math.min(1, Math.max(0, share))), "aria-label": label }),
    el("span", { class: "value" }, value));
}

function labelCounts(labels) {
  const most = labels.reduce((largest, label) => Math.max(largest, label.count), 0);
  const bars = (part) => part.map((label) => bar(label.label, label.count / most, number(label.count)));
  return el("section", { class: "stack" }, el("h3", {}, plural(labels.length, "label")),
    el("div", {}, bars(labels.slice(0, SHOWN_LABELS))),
    labels.length > SHOWN_LABELS &&
      el("details", {}, el("summary", {}, `${labels.length - SHOWN_LABELS} more labels`), bars(labels.slice(SHOWN_LABELS))));
}

function lengthHistogram(lengths, maxLength) {
  const most = Math.max(1, ...lengths.buckets.map((bucket) => bucket.count));
  const isCut = (bucket) => maxLength != null && bucket.up_to > maxLength;
  const cut = lengths.buckets.filter(isCut).reduce((sum, bucket) => sum + bucket.count, 0);
  const bins = lengths.buckets.map((bucket) =>
    el("div", { class: isCut(bucket) ? "bin cut" : "bin" },
      cut > 0 && el("span", {}, isCut(bucket) ? "cut" : "\u00a0"),
      el("span", {}, number(bucket.count)),
      svg("svg", { viewBox: "0 0 10 100", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("rect", { x: 0, y: 100 - (bucket.count / most) * 100, width: 10, height: (bucket.count / most) * 100 })),
      el("span", {}, `≤ ${bucket.up_to}`)));
  const limit = maxLength == null ? "" : ` Texts are cut at ${maxLength} tokens (max_length)${cut ? `: up to ${plural(cut, "text")} of the bars marked “cut”` : "; none is longer"}.`;
  return el("section", { class: "stack" }, el("h3", {}, "Length in tokens"),
    el("div", { class: "histogram", role: "img", "aria-label": `Histogram of lengths: ${lengths.buckets.map((b) => `${b.count} up to ${b.up_to}`).join(", ")}` }, bins),
    el("p", { class: "small muted" }, `Median ${number(lengths.median)}, 95 % up to ${number(lengths.p95)}, longest ${number(lengths.max)}.${limit}`));
}

function diagnostics(title, found, total) {
  if (!found.length) return null;
  return el("details", { open: found.length <= 3 },
    el("summary", {}, `${title}: ${number(total)}`),
    el("ul", { class: "small" }, found.map((one) => el("li", {}, one.line == null ? "" : `Line ${one.line}: `, one.message))),
    total > found.length && el("p", { class: "small muted" }, `The first ${found.length} are shown.`));
}

/** The whole report; `maxLength` is drawn into the histogram. */
export function reportView(report, maxLength) {
  const warnings = Object.values(report.warning_counts).reduce((sum, count) => sum + count, 0);
  const leftOut = Object.entries(report.left_out ?? {});
  return el("div", { class: "stack report" },
    el("dl", { class: "tiles" },
      tile("Rows", number(report.rows)), tile("Examples", number(report.examples)),
      tile("Bad rows", number(report.error_count)), tile("Warnings", number(warnings))),
    (report.mapping ?? []).length > 0 && el("ul", { class: "small" }, report.mapping.map((sentence) => el("li", {}, sentence))),
    leftOut.length > 0 && el("p", { class: "small" }, "Left out: ", leftOut.map(([reason, count]) => `${number(count)} (${reason})`).join(", ")),
    (report.unread_columns ?? []).length > 0 && el("p", { class: "small muted" }, "Not read: ", report.unread_columns.join(", ")),
    diagnostics("Bad rows", report.errors, report.error_count),
    diagnostics("Warnings", report.warnings, warnings),
    report.labels.length > 0 && labelCounts(report.labels),
    report.values && el("p", {}, `Values from ${number(report.values.min)} to ${number(report.values.max)}, median ${number(report.values.median)}`),
    report.lengths.buckets.length > 0 && lengthHistogram(report.lengths, maxLength));
}
