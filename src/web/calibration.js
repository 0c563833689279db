// Reliability diagram: accuracy of the predictions by their confidence.

import { card } from "./cards.js";
import { el, scrollable, svg, table } from "./dom.js";
import { number, percent } from "./format.js";

const SIZE = 100;

export function calibrationCard({ calibration, calibration_bins: bins }) {
  if (!bins?.length) return null;
  const most = Math.max(...bins.map((bin) => bin.examples));
  const at = (share) => share * SIZE;
  const dot = (bin) => svg("circle", { cx: at(bin.confidence), cy: SIZE - at(bin.accuracy), r: 1.5 + 3 * Math.sqrt(bin.examples / most) });
  const gap = (bin) => svg("line", { class: "gap", x1: at(bin.confidence), x2: at(bin.confidence), y1: SIZE - at(bin.confidence), y2: SIZE - at(bin.accuracy) });
  const percentages = [0, 25, 50, 75, 100];
  const diagram = svg("svg", { class: "reliability", viewBox: "-14 -6 122 124", role: "img", "aria-label": "Reliability diagram: accuracy by confidence. The table below has the values." },
    percentages.map((tick) => [
      svg("line", { class: "grid", x1: 0, x2: SIZE, y1: SIZE - tick, y2: SIZE - tick }), svg("line", { class: "grid", x1: tick, x2: tick, y1: 0, y2: SIZE }),
      svg("text", { x: -2, y: SIZE - tick + 1.5, "text-anchor": "end" }, String(tick)), svg("text", { x: tick, y: SIZE + 6, "text-anchor": "middle" }, String(tick)),
    ]),
    svg("line", { class: "diagonal", x1: 0, y1: SIZE, x2: SIZE, y2: 0 }), bins.map(gap), bins.map(dot),
    svg("text", { x: 50, y: SIZE + 15, "text-anchor": "middle" }, "confidence: probability of the predicted label, %"));
  const headings = ["Examples", "Mean confidence", "Accuracy"].map((label) => ({ label, number: true }));
  const rows = bins.map((bin) => [number(bin.examples), percent(bin.confidence), percent(bin.accuracy)]);
  return card("Calibration", "Vertical axis: accuracy. Points on the diagonal are calibrated.",
    diagram,
    el("p", { class: "small muted" }, `Expected calibration error ${percent(calibration.expected_calibration_error_after)} (${percent(calibration.expected_calibration_error_before)} before temperature ${number(calibration.temperature, 2)})`),
    el("details", {}, el("summary", {}, "Values"), scrollable("Calibration by confidence", table(headings, rows))));
}
