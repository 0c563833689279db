// New job: the data, the settings, and the start. The address holds all of it.

import { encoded, getJson, list, postJson } from "./api.js";
import { card } from "./cards.js";
import { may } from "./credential.js";
import { el, replace } from "./dom.js";
import { act, announce, errorNotice } from "./feedback.js";
import { bytes, duration, plural, words } from "./format.js";
import { dataPicker } from "./data-picker.js";
import { examplesCard } from "./examples.js";
import { jobRequest, resolvedHyperparameters, settingNames, withoutSettings } from "./job-request.js";
import { jobSnippets, snippetTabs } from "./snippets.js";
import { patch } from "./patch.js";
import { reportView } from "./report.js";
import { settingsForm } from "./settings-form.js";
import { go, setQuery } from "./router.js";

const MAX_VALIDATIONS = 3;

export async function show(place, view) {
  const { query, signal } = view;
  const head = el("div", { class: "page-head" }, el("h1", {}, "New job"));
  if (!query.get("dataset")) {
    const datasets = await list("datasets", 100);
    const picker = dataPicker({
      datasets,
      onReady: (dataset, columns, settings) => {
        const next = new URLSearchParams(query);
        for (const [name, value] of settings) next.set(name, value);
        next.set("dataset", dataset.id);
        next.delete("col");
        for (const column of columns) next.append("col", column);
        go("new", next);
      },
    });
    replace(place, head, el("div", { class: "steps stack" }, picker));
    return;
  }
  const [dataset, base, adapters] = await Promise.all([
    getJson(encoded`datasets/${query.get("dataset")}`), getJson("base"), may("adapters:read") ? list("adapters", 200) : [],
  ]);
  if (!signal.aborted) await showForm(place, head, { view, query, signal, dataset, base, adapters });
}

async function showForm(place, head, state) {
  const { view, query, signal, dataset } = state;
  const parts = formParts(dataset, signal);
  let check = 0;
  const refresh = async () => {
    check += 1;
    const mine = check;
    setQuery(view);
    const answer = await validate(query, state.validated, signal);
    // An answer to older settings is not shown.
    if (mine !== check || signal.aborted) return;
    Object.assign(state, answer);
    showParts(parts, state, change);
  };
  const change = (name, value) => {
    if (value) query.set(name, value);
    else query.delete(name);
    // Settings of the previous method or task do not apply.
    const stale = { method: "m.", from: "m.", task: "t." }[name];
    for (const key of [...query.keys()]) if (stale && key.startsWith(stale)) query.delete(key);
    refresh();
  };
  parts.start.addEventListener("click", async () => {
    state.isStarting = true;
    await act(parts.start, parts.startProblems, async () => {
      if (state.error) await refresh();
      if (state.error) throw state.error;
      const job = await postJson("jobs", jobRequest(query, state.validated?.spec));
      announce("The job is queued");
      if (!signal.aborted) go(`jobs/${job.id}`);
    });
    state.isStarting = false;
    showStart(parts, state);
  });
  parts.again.addEventListener("click", () => act(parts.again, parts.startProblems, refresh));
  replace(place, head, parts.element);
  await refresh();
}

/** Resolves the settings of the form. `earlier` is the last answer, whose types belong to settings without a type; the first time, the
 * job without settings gives them. */
async function validate(query, earlier, signal) {
  const resolve = (request) => postJson("jobs?validate_only=true", request, { signal });
  let validated = earlier;
  try {
    if (!validated && settingNames(query).length > 0) validated = await resolve(jobRequest(withoutSettings(query)));
    for (let attempt = 0; attempt < MAX_VALIDATIONS; attempt += 1) {
      const request = jobRequest(query, validated?.spec);
      validated = await resolve(request);
      // The answer may have another type, to which the settings belong then.
      if (JSON.stringify(jobRequest(query, validated.spec)) === JSON.stringify(request)) break;
    }
    return { validated, error: null };
  } catch (error) {
    return { validated, error };
  }
}

function formParts(dataset, signal) {
  const parts = Object.fromEntries(["report", "settings", "problems", "request", "startProblems"].map((name) => [name, el("div")]));
  parts.plan = el("p");
  parts.start = el("button", { type: "button", class: "primary" }, "Start training");
  parts.again = el("button", { type: "button", hidden: true }, "Try again");
  const about = [el("span", { class: "muted" }, `${fileName(dataset)}, ${bytes(dataset.bytes)}, ${plural(dataset.report.rows, "row")}`),
    el("div", { class: "end" }, el("a", { class: "button", href: "#/new" }, "Use other data"))];
  parts.element = el("div", { class: "columns" },
    el("div", { class: "stack steps" },
      card("Data", about, parts.report, examplesDisclosure(dataset, signal)),
      card("Settings", null, parts.settings, parts.problems)),
    el("div", { class: "stack beside" },
      card("Start", null, parts.plan,
        el("p", { class: "muted small" }, "The job can be paused, resumed and cancelled at any time, and survives a restart of the server."),
        el("div", { class: "row" }, parts.start, parts.again), parts.startProblems),
      card("API request", null, parts.request)));
  return parts;
}

/** The first rows, read when they are asked for. */
function examplesDisclosure(dataset, signal) {
  const place = el("div");
  const element = el("details", { toggle: () => element.open && !place.firstChild && replace(place, examplesCard(dataset, signal)) },
    el("summary", {}, "Show the examples"), place);
  return element;
}

/** Shows the answer of the server to the settings. */
function showParts(parts, state, change) {
  const { validated, error, dataset, query } = state;
  const maxLength = validated && resolvedHyperparameters(validated.spec).max_length;
  patch(parts.report, reportView(validated?.report ?? dataset.report, maxLength));
  const fields = settingsForm({ ...state, change });
  patch(parts.settings, fields.element);
  replace(parts.problems, error && errorNotice(error, { shown: fields.pointers }));
  showRequest(parts, jobSnippets(jobRequest(query, validated?.spec), fileName(dataset)));
  showStart(parts, state);
}

/** The tabs are kept where the request is the same. */
function showRequest(parts, snippets) {
  const shown = JSON.stringify(snippets);
  if (parts.shownRequest === shown) return;
  parts.shownRequest = shown;
  replace(parts.request, snippetTabs(snippets));
}

/** Only a setting that the server refuses keeps the job from starting; a server that cannot be reached may be there again. */
function showStart(parts, { error, validated, isStarting }) {
  const isRefused = error?.status === 422;
  parts.again.hidden = !error || isRefused;
  parts.start.disabled = Boolean(isStarting || isRefused);
  if (isRefused) replace(parts.plan, "Fix the marked settings.");
  else replace(parts.plan, error ? "The settings are not checked." : planText(validated));
}

function fileName(dataset) {
  return dataset.file_name ?? "data.jsonl";
}

/** What the job does, in one sentence. */
function planText({ spec, estimated_seconds: seconds }) {
  const method = spec.method.type === "auto" ? `the best of ${spec.method.candidates.length} methods` : words(spec.method.type);
  const { epochs } = resolvedHyperparameters(spec);
  const time = seconds == null ? "" : ` About ${duration(seconds)} on this machine, if nothing else runs.`;
  return `Task: ${words(spec.task.type)}. Method: ${method}. ${plural(epochs, "epoch")}.${time}`;
}
