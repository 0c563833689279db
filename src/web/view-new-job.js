// New job: the data, the settings, and the start. The address holds all of it.

import { getJson, list, postJson } from "./api.js";
import { el, replace } from "./dom.js";
import { act, announce, errorNotice } from "./feedback.js";
import { bytes, duration, plural, words } from "./format.js";
import { dataPicker } from "./data-picker.js";
import { examplesCard } from "./examples.js";
import { jobRequest } from "./job-request.js";
import { jobSnippets, snippetTabs } from "./snippets.js";
import { reportView } from "./report.js";
import { settingsForm } from "./settings-form.js";
import { go, setQuery } from "./router.js";

export async function show(place, { query, signal }) {
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
    getJson(`datasets/${query.get("dataset")}`), getJson("base"), list("adapters", 200),
  ]);
  if (!signal.aborted) await showForm(place, head, { query, signal, dataset, base, adapters });
}

async function showForm(place, head, state) {
  const { query, signal, dataset } = state;
  const parts = formParts(dataset, signal);
  let check = 0;
  const refresh = async () => {
    check += 1;
    const mine = check;
    setQuery(query);
    const answer = await postJson("jobs?validate_only=true", jobRequest(query, state.validated?.spec), { signal })
      .then((validated) => ({ validated, error: null }), (error) => ({ validated: state.validated, error }));
    // An answer to older settings is not shown.
    if (mine !== check || signal.aborted) return;
    Object.assign(state, answer);
    showParts(parts, state, change);
  };
  const change = (name, value) => {
    if (value) query.set(name, value);
    else query.delete(name);
    // Settings of another method or task mean nothing.
    const stale = { method: "m.", from: "m.", task: "t." }[name];
    for (const key of [...query.keys()]) if (stale && key.startsWith(stale)) query.delete(key);
    refresh();
  };
  parts.start.addEventListener("click", () => act(parts.start, parts.startProblems, async () => {
    const job = await postJson("jobs", jobRequest(query, state.validated?.spec));
    announce("The job is queued");
    go(`jobs/${job.id}`);
  }));
  replace(place, head, parts.element);
  await refresh();
}

function formParts(dataset, signal) {
  const parts = Object.fromEntries(["report", "settings", "problems", "same", "startProblems"].map((name) => [name, el("div")]));
  parts.plan = el("p");
  parts.start = el("button", { type: "button", class: "primary" }, "Start training");
  const about = `${fileName(dataset)}, ${bytes(dataset.bytes)}, ${plural(dataset.report.rows, "row")}`;
  parts.element = el("div", { class: "columns" },
    el("div", { class: "stack steps" },
      el("section", { class: "card", "aria-label": "Data" },
        el("div", { class: "card-head" }, el("h2", {}, "Data"), el("span", { class: "muted" }, about),
          el("div", { class: "end" }, el("a", { class: "button", href: "#/new" }, "Use other data"))),
        parts.report, examplesDisclosure(dataset, signal)),
      el("section", { class: "card", "aria-label": "Settings" }, el("div", { class: "card-head" }, el("h2", {}, "Settings")), parts.settings, parts.problems)),
    el("div", { class: "stack beside" },
      el("section", { class: "card", "aria-label": "Start" }, el("h2", {}, "Start"), parts.plan,
        el("p", { class: "muted small" }, "The job can be paused, resumed and cancelled at any time, and survives a restart of the server."),
        el("div", {}, parts.start), parts.startProblems),
      el("section", { class: "card", "aria-label": "The same as code" }, el("h2", {}, "The same as code"), parts.same)));
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
  const focused = document.activeElement?.id;
  replace(parts.report, reportView(validated?.report ?? dataset.report, validated?.spec.hyperparameters?.max_length));
  const fields = settingsForm({ ...state, change });
  replace(parts.settings, fields.element);
  replace(parts.problems, error && errorNotice(error, { shown: fields.pointers }));
  replace(parts.same, snippetTabs(jobSnippets(jobRequest(query, validated?.spec), fileName(dataset))));
  replace(parts.plan, error ? "A setting has to be corrected first." : planText(validated));
  parts.start.disabled = Boolean(error);
  if (focused) document.getElementById(focused)?.focus();
}

function fileName(dataset) {
  return dataset.file_name ?? "data.jsonl";
}

/** What the job does, in one sentence. */
function planText({ spec, estimated_seconds: seconds }) {
  const method = spec.method.type === "auto" ? `the best of ${spec.method.candidates.length} methods` : words(spec.method.type);
  const epochs = spec.hyperparameters ? ` ${plural(spec.hyperparameters.epochs, "epoch")}.` : "";
  const time = seconds == null ? "" : ` About ${duration(seconds)} on this machine, if nothing else runs.`;
  return `Task: ${words(spec.task.type)}. Method: ${method}.${epochs}${time}`;
}
