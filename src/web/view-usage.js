// Usage: requests and tokens by day, owner and adapter.

import { apiUrl, getJson } from "./api.js";
import { card, emptyCard, tile } from "./cards.js";
import { Chart } from "./chart.js";
import { may } from "./credential.js";
import { el, field, replace, scrollable, select, table } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { number } from "./format.js";
import { href, setQuery } from "./router.js";

const DAY = 86_400_000;
const DEFAULT_DAYS = 30;
/** Lines of the chart; the groups beyond them are one line. */
const LINES = 4;
const METRICS = [["requests", "Requests"], ["input_tokens", "Input tokens"], ["output_tokens", "Output tokens"]];
const GROUPS = [["day", "Day"], ["owner", "Owner"], ["adapter", "Adapter"]];
const BASE_MODEL = "base model";

/** Days since 1970, and their text. */
const dayNumber = (day) => Date.parse(day) / DAY;
const isoDay = (count) => new Date(count * DAY).toISOString().slice(0, 10);
const dayText = (count) => (count == null ? "–" : new Date(count * DAY).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" }));

export async function show(place, view) {
  const owners = may("admin") ? (await getJson("owners", { signal: view.signal })).data.map((owner) => owner.name) : [];
  if (view.signal.aborted) return;
  const usage = new UsageView(view, owners);
  replace(place, usage.elements());
  await usage.refresh();
}

class UsageView {
  constructor(view, owners) {
    Object.assign(this, { view, query: view.query, owners, rows: [], chart: null, lastRequest: 0 });
    this.problems = el("div");
    this.content = el("div", { class: "stack" });
    this.csv = el("a", { class: "button", download: "usage.csv" }, "CSV");
    document.addEventListener("themechange", () => this.draw(), { signal: view.signal });
    view.signal.addEventListener("abort", () => this.chart?.destroy());
  }

  elements() {
    const reread = (name) => (value) => this.set(name, value, () => this.refresh());
    const redraw = (name) => (value) => this.set(name, value, () => this.draw());
    const day = (name) => {
      const control = el("input", { type: "date", value: this.period()[name], change: () => reread(name)(control.value) });
      return control;
    };
    const owners = [["", "All owners"], ...[...new Set([...this.owners, this.query.get("owner")])].filter(Boolean).sort().map((owner) => [owner, owner])];
    return [
      el("div", { class: "page-head" }, el("h1", {}, "Usage"), el("div", { class: "end" }, this.csv)),
      el("div", { class: "card" }, el("div", { class: "fields" },
        field("First day", day("since")), field("Last day", day("until")),
        may("admin") && field("Owner", select(owners, this.query.get("owner") ?? "", reread("owner"))),
        field("By", select(GROUPS, this.group(), redraw("by"))), field("Chart of", select(METRICS, this.metric(), redraw("of"))))),
      this.problems, this.content,
    ];
  }

  set(name, value, then) {
    if (value) this.query.set(name, value);
    else this.query.delete(name);
    setQuery(this.view);
    then();
  }

  period() {
    const until = this.query.get("until") ?? isoDay(Math.floor(Date.now() / DAY));
    return { since: this.query.get("since") ?? isoDay(dayNumber(until) - DEFAULT_DAYS), until };
  }

  group() {
    return this.query.get("by") ?? "day";
  }

  metric() {
    return this.query.get("of") ?? "requests";
  }

  /** Administrators see all owners unless they choose one. */
  path(format) {
    const owner = may("admin") ? this.query.get("owner") ?? "*" : "";
    const parameters = Object.entries({ ...this.period(), owner, format }).filter(([, value]) => value);
    return `usage?${new URLSearchParams(parameters)}`;
  }

  async refresh() {
    this.lastRequest += 1;
    const mine = this.lastRequest;
    this.csv.href = apiUrl(this.path("csv"));
    try {
      const { data } = await getJson(this.path(""), { signal: this.view.signal });
      // An answer for an earlier choice is not shown.
      if (mine !== this.lastRequest) return;
      this.rows = data;
      replace(this.problems);
      this.draw();
      announce("The usage is shown");
    } catch (error) {
      if (!this.view.signal.aborted && mine === this.lastRequest) replace(this.problems, errorNotice(error));
    }
  }

  draw() {
    this.chart?.destroy();
    this.chart = null;
    if (this.rows.length === 0) {
      replace(this.content, emptyCard("No usage", "Predictions and generated text of this period are counted here, after some seconds.",
        may("predict", "generate") && el("a", { class: "button primary", href: href("playground") }, "Playground")));
      return;
    }
    const total = sum(this.rows);
    const plot = el("div", { class: "chart" });
    const metric = METRICS.find(([name]) => name === this.metric()) ?? METRICS[0];
    replace(this.content,
      el("dl", { class: "tiles" }, METRICS.map(([name, title]) => tile(title, number(total[name])))),
      card(metric[1], "By day, UTC", plot), card(`By ${this.group()}`, null, usageTable(this.rows, this.group())));
    this.chart = new Chart(plot, { label: "day", text: dayText });
    this.chart.draw(this.series(metric[0]), false);
  }

  /** A line of the total, or of the largest groups and of the others together. Days without usage are 0. */
  series(metric) {
    const by = this.group();
    if (by === "day") return [this.line("all", this.rows, metric)];
    const groups = [...groupBy(this.rows, keyOf(by))].sort((a, b) => sum(b[1])[metric] - sum(a[1])[metric]);
    const shown = groups.length <= LINES ? groups : groups.slice(0, LINES - 1);
    const others = groups.slice(shown.length).flatMap(([, rows]) => rows);
    const lines = shown.map(([key, rows]) => this.line(key, rows, metric));
    return others.length ? [...lines, this.line("others", others, metric)] : lines;
  }

  line(label, rows, metric) {
    const { since, until } = this.period();
    const days = groupBy(rows, (row) => row.day);
    const [first, last] = [dayNumber(since), dayNumber(until)];
    const steps = Array.from({ length: last - first + 1 }, (_, index) => first + index);
    return { label, steps, values: steps.map((step) => sum(days.get(isoDay(step)) ?? [])[metric]) };
  }
}

function keyOf(by) {
  if (by === "owner") return (row) => row.owner;
  if (by === "adapter") return (row) => `${row.owner}: ${row.adapter ?? BASE_MODEL}`;
  return (row) => row.day;
}

function groupBy(rows, key) {
  const groups = new Map();
  for (const row of rows) {
    if (!groups.has(key(row))) groups.set(key(row), []);
    groups.get(key(row)).push(row);
  }
  return groups;
}

function sum(rows) {
  return Object.fromEntries(METRICS.map(([name]) => [name, rows.reduce((all, row) => all + row[name], 0)]));
}

function usageTable(rows, by) {
  const groups = [...groupBy(rows, keyOf(by))].map(([, found]) => ({ first: found[0], total: sum(found) }));
  if (by === "day") groups.sort((a, b) => b.first.day.localeCompare(a.first.day));
  else groups.sort((a, b) => b.total.requests - a.total.requests);
  const names = { day: ["Day"], owner: ["Owner"], adapter: ["Owner", "Adapter"] }[by] ?? ["Day"];
  const cells = { Day: (row) => row.day, Owner: (row) => row.owner, Adapter: (row) => row.adapter ?? BASE_MODEL };
  const headings = [...names, ...METRICS.map(([, label]) => ({ label, number: true }))];
  const body = groups.map(({ first, total }) => [...names.map((name) => cells[name](first)), ...METRICS.map(([name]) => number(total[name]))]);
  return scrollable("Usage", table(headings, body, { className: "stacking", caption: `Usage by ${by}` }), "scroll tall");
}
