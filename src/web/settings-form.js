// Settings of a new job. The fields follow from the job that the server resolved: every default is shown, and every setting of the method.

import { el, field, select } from "./dom.js";
import { COMMON_FIELDS, METHODS, SETTINGS, TASKS, TASK_FIELDS } from "./explain.js";
import { shownValue } from "./job-request.js";
import { shortVersion, words } from "./format.js";

/** Returns the form's element, and the pointers whose errors it shows at a field. `change` sets a parameter of the address. */
export function settingsForm({ query, base, adapters, validated, error, dataset, change }) {
  const pointers = [];
  const errorAt = (pointer) => {
    const found = error?.fields?.find((one) => one.pointer === pointer || one.pointer?.startsWith(`${pointer}/`));
    if (found) pointers.push(found.pointer);
    return found?.message;
  };
  const form = { query, change, errorAt, spec: validated?.spec };
  const element = el("form", { class: "stack", submit: (event) => event.preventDefault() },
    el("div", { class: "fields" }, generalFields(form, base, adapters)),
    columnFields(form, dataset),
    parameterFields(form));
  return { element, pointers };
}

function textInput({ query, change }, name, placeholder) {
  const control = el("input", {
    id: `set-${name}`, value: query.get(name) ?? "", placeholder, autocomplete: "off", spellcheck: "false",
    change: () => change(name, control.value.trim()),
  });
  return control;
}

function choice({ query, change }, name, options) {
  return select(options, query.get(name) ?? "", (value) => change(name, value), { id: `set-${name}` });
}

function generalFields(form, base, adapters) {
  const { query, spec, errorAt } = form;
  const resolvedTask = spec?.task.type;
  const resolvedMethod = spec?.method.type;
  const automatic = (resolved) => (resolved ? `Automatic (${words(resolved)})` : "Automatic");
  const tasks = [["", query.get("task") ? "Automatic" : automatic(resolvedTask)], ...base.tasks.map((task) => [task, words(task)])];
  const methods = [["", query.get("method") ? "Automatic" : automatic(resolvedMethod)], ["auto", "Compare several"], ...base.methods.map((method) => [method, words(method)])];
  const from = [["", "New parameters"], ...adapters.map((adapter) =>
    [adapter.id, `${adapter.name ?? "without a name"} @ ${shortVersion(adapter.version)}`])];
  return [
    field("Name", textInput(form, "name", "questions"), { hint: "Requests use this name; it refers to the newest version", error: errorAt("/name") }),
    field("Task", choice(form, "task", tasks), { hint: TASKS[query.get("task") || resolvedTask], error: errorAt("/task") }),
    field("Method", choice(form, "method", methods), { hint: METHODS[query.get("method") || resolvedMethod], error: query.get("method") ? null : errorAt("/method") }),
    adapters.length > 0 && field("Start from", choice(form, "from", from), { hint: "An adapter to train further, with its method", error: errorAt("/from_adapter") }),
  ];
}

function columnFields(form, dataset) {
  const { query, spec, errorAt } = form;
  const task = query.get("task") || spec?.task.type;
  const set = [...query.keys()].filter((name) => name.startsWith("c.")).map((name) => name.slice(2));
  const fields = [...new Set([...(TASK_FIELDS[task] ?? COMMON_FIELDS), ...set])];
  const known = [...query.getAll("col"), ...Object.values(dataset.options.columns ?? {}), ...(dataset.report.unread_columns ?? [])];
  const columns = [...new Set([...known, ...set.map((name) => query.get(`c.${name}`))])];
  if (columns.length === 0) return null;
  const options = [["", "by its usual name"], ...columns.map((column) => [column, column])];
  const skip = el("input", { type: "checkbox", id: "set-skip", checked: Boolean(query.get("skip")), change: () => form.change("skip", skip.checked ? "1" : "") });
  return disclosure("set-columns", "Columns", set.length > 0 || Boolean(errorAt("/columns")),
    el("div", { class: "stack" },
      el("div", { class: "fields" }, fields.map((name) => field(words(name), choice(form, `c.${name}`, options), { error: errorAt(`/columns/${name}`) }))),
      el("label", { class: "check", for: "set-skip" }, skip, "Leave bad rows out")));
}

function parameterFields(form) {
  const { query, spec, errorAt } = form;
  if (!spec) return null;
  if (spec.method.type === "auto") {
    return el("p", { class: "small muted" }, "Candidates: ", spec.method.candidates.map((candidate) => words(candidate.type)).join(", "));
  }
  const hyperparameters = { ...spec.hyperparameters };
  for (const name of ["max_steps", "early_stopping"]) hyperparameters[name] ??= null;
  const inputs = (values, prefix, pointer) => Object.entries(values).filter(([name]) => name !== "type").map(([name, value]) => {
    const control = parameterControl(form, prefix + name, name, value);
    const hint = name === "early_stopping" ? "Epochs without improvement before the run ends" : SETTINGS[name];
    return field(words(name), control, { hint, error: errorAt(`${pointer}/${name}`) });
  });
  const count = [...query.keys()].filter((name) => /^[hmt]\./.test(name)).length;
  const taskFields = inputs(spec.task, "t.", "/task");
  const title = count ? `More settings (${count} changed)` : "More settings: all have defaults";
  return disclosure("set-more", title, count > 0,
    el("div", { class: "stack" },
      el("h3", {}, "Hyperparameters"),
      el("div", { class: "fields" }, inputs(hyperparameters, "h.", "/hyperparameters")),
      el("h3", {}, `Method: ${words(spec.method.type)}`),
      el("div", { class: "fields" }, inputs(spec.method, "m.", "/method")),
      taskFields.length > 0 && el("h3", {}, `Task: ${words(spec.task.type)}`),
      taskFields.length > 0 && el("div", { class: "fields" }, taskFields)));
}

/** Part of the form that stays open where the user opened it. */
function disclosure(id, title, isOpen, content) {
  const wasOpen = document.getElementById(id)?.open ?? false;
  return el("details", { id, open: isOpen || wasOpen }, el("summary", {}, title), content);
}

function parameterControl(form, parameter, name, value) {
  const automatic = ["", form.query.get(parameter) ? "default" : `${value} (default)`];
  if (name === "schedule") return choice(form, parameter, [automatic, ...["constant", "linear", "cosine"].map((one) => [one, one])]);
  if (typeof value === "boolean") return choice(form, parameter, [automatic, ["true", "true"], ["false", "false"]]);
  return textInput(form, parameter, shownValue(value) || "none");
}
