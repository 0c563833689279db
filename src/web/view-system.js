// The server: base model, health, memory, queues, workers, throughput. From /base, /health, /jobs and /metrics.

import { getJson, getPage, send } from "./api.js";
import { card, tile } from "./cards.js";
import { may, scopeNotice } from "./credential.js";
import { el, replace, scrollable, setText, table } from "./dom.js";
import { showPollingError } from "./feedback.js";
import { bytes, duration, jobTitle, number, percent, words } from "./format.js";
import { patch } from "./patch.js";
import { every } from "./polling.js";
import { href } from "./router.js";

/** Samples of an OpenMetrics text: `{name, labels, value}`. */
function parseMetrics(text) {
  return text.split("\n").flatMap((line) => {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) return [];
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    return [{ name: found[1], labels, value: Number(found[3]) }];
  });
}

const TILES = [
  { title: "Adapters in memory", metric: "espalier_adapter_cache_entries" },
  { title: "Memory of adapters", metric: "espalier_adapter_cache_bytes", show: bytes },
  { title: "KV cache", metric: "espalier_kv_cache_reserved_bytes", show: bytes },
  { title: "Inputs in the queue", metric: "espalier_queued_inputs" },
  { title: "Sequences running", metric: "espalier_sequences_running" },
  { title: "Sequences waiting", metric: "espalier_sequences_queued" },
  { title: "Requests in flight", metric: "espalier_http_requests_in_flight" },
];
const RATES = [
  { title: "Requests/s", metric: "espalier_http_requests_total" },
  { title: "Predictions/s", metric: "espalier_serving_batched_inputs_total" },
  { title: "Generated tokens/s", metric: "espalier_generation_tokens_total" },
];

function total(samples, name, labels = {}) {
  const matching = samples.filter((sample) => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value));
  return matching.length ? matching.reduce((sum, sample) => sum + sample.value, 0) : null;
}

export async function show(place, { signal }) {
  const base = await getJson("base", { signal });
  const problems = el("div");
  const health = el("span", { class: "badge" }, "…");
  const healthProblem = el("p", { class: "notice error", hidden: true });
  const version = el("span", { class: "muted" });
  const live = el("div", { class: "stack" });
  let earlier = null;
  const refresh = async () => {
    const [text, problem, running] = await Promise.all([
      may("metrics") ? send("metrics", { signal }).then((response) => response.text()) : "",
      getJson("health/ready", { signal }).then(({ status }) => (status === "ready" ? "" : status), (error) => error.message),
      may("train") ? getPage("jobs", { status: "running" }, 100, { signal }) : null,
    ]);
    if (signal.aborted) return;
    setText(health, problem ? "not ready" : "ready");
    health.className = `badge ${problem ? "failed" : "succeeded"}`;
    setText(healthProblem, problem);
    healthProblem.hidden = !problem;
    const now = { time: performance.now(), samples: parseMetrics(text) };
    const build = now.samples.find((sample) => sample.name === "espalier_build_info");
    setText(version, build ? `Version ${build.labels.version}` : "");
    patch(live, may("metrics") ? liveParts(now, earlier) : scopeNotice("What the server is doing", ["metrics"]), running && workersCard(running));
    earlier = now;
  };
  replace(place, el("div", { class: "page-head" }, el("h1", {}, "System"), health, version,
    el("div", { class: "end" }, el("a", { class: "button", href: "docs/" }, "API documentation"))), problems, healthProblem, live, baseCard(base));
  await refresh();
  every(() => 2000, signal, refresh, (error) => showPollingError(problems, error));
}

function liveParts({ time, samples }, earlier) {
  const jobs = samples.filter((sample) => sample.name === "espalier_jobs" && sample.value > 0);
  const hits = total(samples, "espalier_adapter_cache_hits_total") ?? 0;
  const misses = total(samples, "espalier_adapter_cache_misses_total") ?? 0;
  const rate = ({ title, metric }) => {
    const now = total(samples, metric);
    const before = earlier && total(earlier.samples, metric);
    const value = now == null || before == null ? null : ((now - before) / (time - earlier.time)) * 1000;
    return tile(title, value == null ? "–" : number(Math.max(0, value), 1));
  };
  const shown = TILES.map(({ title, metric, show: format = number }) => [title, total(samples, metric), format]).filter(([, value]) => value != null);
  return [
    el("dl", { class: "tiles" }, RATES.map(rate), shown.map(([title, value, format]) => tile(title, format(value))),
      hits + misses > 0 && tile("Adapter cache hits", percent(hits / (hits + misses), 0))),
    card("Jobs", null,
      jobs.length ? el("dl", { class: "tiles" }, jobs.map((sample) => tile(sample.labels.status, number(sample.value)))) : el("p", { class: "muted" }, "No jobs")),
    routesCard(samples),
  ];
}

/** Workers with their running jobs and the time until their leases expire. */
function workersCard({ data, next }) {
  const rows = data.filter((job) => job.worker).map(({ id, name, worker, progress }) => [
    el("code", { title: worker.process_id }, worker.process_id.slice(-12)),
    el("a", { href: href(`jobs/${id}`) }, jobTitle({ name, id })),
    progress ? percent(progress.step / progress.total_steps, 0) : "preparing",
    progress ? `${number(progress.examples_per_second, 0)} examples/s` : "–",
    duration(Math.max(0, (new Date(worker.lease_expires_at) - Date.now()) / 1000)),
  ]);
  return card("Workers", next ? "The newest running jobs" : null,
    rows.length
      ? scrollable("Workers", table(["Process", "Job", { label: "Done", number: true }, { label: "Speed", number: true }, { label: "Lease expires in", number: true }], rows))
      : el("p", { class: "muted" }, "No job is running"));
}

function routesCard(samples) {
  const counts = samples.filter((sample) => sample.name === "espalier_http_request_duration_seconds_count" && sample.value > 0);
  if (!counts.length) return null;
  const rows = counts.sort((a, b) => b.value - a.value).slice(0, 12).map(({ labels, value }) => {
    const sum = total(samples, "espalier_http_request_duration_seconds_sum", labels) ?? 0;
    const failures = samples.filter((sample) => sample.name === "espalier_http_requests_total" && sample.labels.route === labels.route && sample.labels.method === labels.method && sample.labels.status >= "400")
      .reduce((all, sample) => all + sample.value, 0);
    return [`${labels.method} ${labels.route}`, number(value), `${number((sum / value) * 1000, 1)} ms`, number(failures)];
  });
  const numeric = (label) => ({ label, number: true });
  return card("Requests since the start", null,
    scrollable("Requests by route", table(["Route", numeric("Requests"), numeric("Mean time to answer"), numeric("Errors")], rows)));
}

function baseCard(base) {
  const entries = [
    ["Name", base.name], ["Architecture", base.model_type], ["Parameters", number(base.parameters)], ["Layers", number(base.layers)],
    ["Hidden size", number(base.hidden_size)], ["Vocabulary", number(base.vocabulary_size)], ["Longest input", `${number(base.max_tokens)} tokens`],
    ["Backend", base.kernels], ["Chat template", base.chat ? "yes" : "no"], ["Fingerprint", base.fingerprint],
    ["Methods", base.methods.map(words).join(", ")], ["Tasks", base.tasks.map(words).join(", ")],
  ];
  return card("Base model", null,
    el("dl", { class: "settings-list" }, entries.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}
