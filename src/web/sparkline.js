// Small curve of the training loss of a running job.

import { svg } from "./dom.js";
import { MetricHistory, readNewEvents } from "./metric-history.js";

const WIDTH = 110;
const HEIGHT = 22;
const MAX_POINTS = 200;

export class Sparkline {
  constructor(id) {
    this.id = id;
    this.history = new MetricHistory();
    this.line = svg("polyline", { fill: "none" });
    this.element = svg("svg", { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true" }, this.line);
    this.isReading = false;
  }

  /** Reads the events since the last call. A curve that cannot be read is not drawn; the list says why the server does not answer. */
  async refresh(signal) {
    if (this.isReading) return;
    this.isReading = true;
    try {
      await readNewEvents(this.id, this.history, signal);
      this.draw();
    } catch {
      this.line.removeAttribute("points");
    } finally {
      this.isReading = false;
    }
  }

  draw() {
    const { steps, values } = this.history.series("train", "loss");
    if (steps.length < 2) return;
    const every = Math.ceil(steps.length / MAX_POINTS);
    const shown = steps.map((step, index) => [step, values[index]]).filter((_, index) => index % every === 0 || index === steps.length - 1);
    const losses = shown.map(([, loss]) => loss);
    const [least, most] = [Math.min(...losses), Math.max(...losses)];
    const [first, last] = [shown[0][0], shown[shown.length - 1][0]];
    const x = (step) => 1 + ((step - first) / (last - first)) * (WIDTH - 2);
    const y = (loss) => 2 + (1 - (loss - least) / (most - least || 1)) * (HEIGHT - 4);
    this.line.setAttribute("points", shown.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" "));
  }
}
