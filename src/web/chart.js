// Curves over the steps of a job or over days, drawn by uPlot.

import uPlot from "./uplot.js";
import { number } from "./format.js";
import { isDark } from "./theme.js";

const MAX_POINTS_WITH_DOTS = 60;
/** Distances between the marks of the steps or days: whole numbers. */
const INCREMENTS = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((factor) => factor * 10 ** power)).flat();

/** Exponential moving average; `strength` from 0 to 0.99. */
export function smoothed(values, strength) {
  let mean = null;
  return values.map((value) => (mean = mean == null ? value : strength * mean + (1 - strength) * value));
}

/** Joins series on their steps: `[{label, steps, values}]` → uPlot's columns. */
export function joined(series) {
  const steps = [];
  const columns = series.map(() => []);
  const positions = series.map(() => 0);
  for (;;) {
    let step = Infinity;
    series.forEach((one, index) => (step = Math.min(step, one.steps[positions[index]] ?? Infinity)));
    if (step === Infinity) return [steps, ...columns];
    steps.push(step);
    series.forEach((one, index) => {
      const isHere = one.steps[positions[index]] === step;
      columns[index].push(isHere ? one.values[positions[index]] : null);
      if (isHere) positions[index] += 1;
    });
  }
}

const STEP_AXIS = { label: "step", text: number };

export class Chart {
  /** `axis` has the label of the steps, and the function that writes one of them. */
  constructor(element, axis = STEP_AXIS) {
    this.element = element;
    this.axis = axis;
    this.plot = null;
    this.shape = "";
    this.observer = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.observer.observe(element);
  }

  size() {
    return { width: Math.max(240, this.element.clientWidth), height: 300 };
  }

  /** Draws the series; a change of only the data keeps the zoom. */
  draw(series, isLogarithmic) {
    const data = joined(series);
    const shape = JSON.stringify([series.map((one) => one.label), isLogarithmic, isDark()]);
    if (this.plot && shape === this.shape) {
      const { min, max } = this.plot.scales.x;
      const old = this.plot.data[0];
      const isZoomed = old.length > 1 && (min > old[0] || max < old[old.length - 1]);
      this.plot.setData(data, !isZoomed);
      if (isZoomed) this.plot.setScale("x", { min, max });
      return;
    }
    this.plot?.destroy();
    this.shape = shape;
    this.plot = new uPlot(this.options(series, isLogarithmic), data, this.element);
    const canvas = this.element.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Curves: ${series.map((one) => one.label).join(", ")}. The table below has their values.`);
  }

  options(series, isLogarithmic) {
    const { label, text } = this.axis;
    const style = getComputedStyle(document.documentElement);
    const probe = document.createElement("span");
    this.element.append(probe);
    const color = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    const muted = color("--muted");
    const line = color("--line");
    const colors = ["--series-1", "--series-2", "--series-3", "--series-4"].map(color);
    probe.remove();
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: `12px ${style.fontFamily || "sans-serif"}` };
    return {
      ...this.size(),
      scales: { x: { time: false }, y: { distr: isLogarithmic ? 3 : 1 } },
      axes: [{ ...axis, incrs: INCREMENTS, values: (_, steps) => steps.map((step) => (step == null ? "" : text(step))), label, labelSize: 18, labelFont: axis.font }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : number(tick))) }],
      series: [
        { label, value: (_, step) => text(step) },
        ...series.map((one, index) => ({
          label: one.label, stroke: colors[index % colors.length], width: 2, spanGaps: true, dash: one.isOverlay ? [6, 4] : undefined,
          points: { show: one.steps.length <= MAX_POINTS_WITH_DOTS, size: 5 }, value: (_, value) => number(value),
        })),
      ],
    };
  }

  toBlob() {
    return new Promise((resolve) => this.element.querySelector("canvas").toBlob(resolve));
  }

  destroy() {
    this.observer.disconnect();
    this.plot?.destroy();
  }
}
