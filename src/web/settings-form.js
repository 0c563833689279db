// Settings of a new job. The fields follow from the job that the server resolved: every default is shown, and every setting of the method.

import { el, field, select } from "./dom.js";
import { COMMON_FIELDS, METHODS, SETTINGS, TASKS, TASK_FIELDS } from "./explain.js";
import { resolvedHyperparameters, settingNames, shownValue } from "./job-request.js";
import { shortVersion, words } from "./format.js";

const CHOICES = { schedule: ["constant", "linear", "cosine"], published_epoch: ["best", "last"], precision: ["f32", "int8"] };

/** Returns the form's element, and the pointers whose errors it shows at a field. `change` sets a parameter of the address. */
export function settingsForm({ query, base, adapters, validated, error, dataset, change }) {
  const pointers = [];
  const errorAt = (pointer, isExact = false) => {
    const found = error?.fields?.find((one) => one.pointer === pointer || (!isExact && one.pointer?.startsWith(`${pointer}/`)));
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
  const from = sourceOptions(adapters, query.get("from"));
  return [
    field("Name", textInput(form, "name", "questions"), { hint: "Requests use this name; the newest version answers", error: errorAt("/name") }),
    field("Task", choice(form, "task", tasks), { hint: TASKS[query.get("task") || resolvedTask], error: errorAt("/task", true) }),
    field("Method", choice(form, "method", methods), { hint: METHODS[query.get("method") || resolvedMethod], error: errorAt("/method", true) }),
    from.length > 1 && field("Start from", choice(form, "from", from), { hint: "An adapter to train further, with its method", error: errorAt("/from_adapter") }),
  ];
}

/** Adapters to start from. The one of the address may be older than those of the list. */
function sourceOptions(adapters, chosen) {
  const options = adapters.map((adapter) => [adapter.id, `${adapter.name ?? "unnamed"} @ ${shortVersion(adapter.version)}`]);
  const isListed = !chosen || adapters.some((adapter) => adapter.id === chosen);
  return [["", "New parameters"], ...options, ...(isListed ? [] : [[chosen, chosen]])];
}

function columnFields(form, dataset) {
  const { query, spec, errorAt } = form;
  const task = query.get("task") || spec?.task.type;
  const set = [...query.keys()].filter((name) => name.startsWith("c.")).map((name) => name.slice(2));
  const fields = [...new Set([...(TASK_FIELDS[task] ?? COMMON_FIELDS), ...set])];
  const known = [...query.getAll("col"), ...Object.values(dataset.options.columns ?? {}), ...(dataset.report.unread_columns ?? [])];
  const columns = [...new Set([...known, ...set.map((name) => query.get(`c.${name}`))])];
  if (columns.length === 0) return null;
  const options = [["", "Automatic"], ...columns.map((column) => [column, column])];
  const skip = el("input", { type: "checkbox", id: "set-skip", checked: Boolean(query.get("skip")), change: () => form.change("skip", skip.checked ? "1" : "") });
  return disclosure("set-columns", "Columns", set.length > 0, Boolean(errorAt("/columns")),
    el("div", { class: "stack" },
      el("div", { class: "fields" }, fields.map((name) => field(words(name), choice(form, `c.${name}`, options), { error: errorAt(`/columns/${name}`) }))),
      el("label", { class: "check", for: "set-skip" }, skip, "Skip invalid rows")));
}

/** Settings of the resolved job, and those of the address that it does not have. */
function parameterFields(form) {
  const { query, spec } = form;
  const settings = settingNames(query);
  if (!spec && settings.length === 0) return null;
  const hasType = (name) => spec && (!query.get(name) || query.get(name) === spec[name].type);
  const groups = [
    settingGroup(form, "Hyperparameters", spec && shownHyperparameters(spec), "h.", "/hyperparameters"),
    settingGroup(form, typeTitle(form, "Method", "method"), hasType("method") ? spec.method : null, "m.", "/method"),
    settingGroup(form, typeTitle(form, "Task", "task"), hasType("task") ? spec.task : null, "t.", "/task"),
  ];
  const title = settings.length ? `More settings (${settings.length} changed)` : "More settings: all have defaults";
  return disclosure("set-more", title, settings.length > 0, groups.some((group) => group?.hasError),
    el("div", { class: "stack" }, groups.map((group) => group?.parts)));
}

/** Those without a value come last, whether they are set or not, so that the fields keep their order. */
function shownHyperparameters(spec) {
  const { max_steps: maxSteps = null, early_stopping: earlyStopping = null, ...others } = resolvedHyperparameters(spec);
  return { ...others, max_steps: maxSteps, early_stopping: earlyStopping };
}

function typeTitle({ query, spec }, title, name) {
  const type = query.get(name) || spec?.[name].type;
  return type ? `${title}: ${words(type)}` : title;
}

/** Heading and fields of the settings with one prefix. The methods that `auto` compares are a text. */
function settingGroup(form, title, resolved, prefix, pointer) {
  const { type: _, candidates, ...values } = resolved ?? {};
  const named = settingNames(form.query).filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  for (const name of named) values[name] ??= null;
  const fields = Object.entries(values).map(([name, value]) => {
    const hint = name === "early_stopping" ? "Epochs without improvement before the run ends" : SETTINGS[name];
    const error = form.errorAt(`${pointer}/${name}`);
    return { error, element: field(words(name), parameterControl(form, prefix + name, name, value), { hint, error }) };
  });
  if (fields.length === 0 && !candidates) return null;
  const parts = [
    el("h3", {}, title),
    candidates && el("p", { class: "small muted" }, "Candidates: ", candidates.map((candidate) => words(candidate.type)).join(", ")),
    el("div", { class: "fields" }, fields.map((one) => one.element)),
  ];
  return { parts, hasError: fields.some((one) => one.error) };
}

/** Part of the form that is open at first where it has a setting, and always where it has an error. */
function disclosure(id, title, isOpen, hasError, content) {
  const shown = document.getElementById(id);
  if (shown && hasError) shown.open = true;
  return el("details", { id, open: hasError || isOpen }, el("summary", {}, title), content);
}

function parameterControl(form, parameter, name, value) {
  const automatic = ["", form.query.get(parameter) ? "default" : `${shownValue(value) || "none"} (default)`];
  if (CHOICES[name]) return choice(form, parameter, [automatic, ...CHOICES[name].map((one) => [one, one])]);
  if (typeof value === "boolean") return choice(form, parameter, [automatic, ["true", "true"], ["false", "false"]]);
  return textInput(form, parameter, shownValue(value) || "none");
}
