// Job request from the address of the form: every setting is a parameter, so that a reload or a link keeps the form.
//
// `name`, `task`, `method`, `from`, `skip` (bad rows), `c.FIELD` (columns), `t.NAME` (settings of the task), `m.NAME` (settings of the
// method), `h.NAME` (hyperparameters), `x.NAME` (other fields of the request, as JSON).

/** Hyperparameters that the candidates of `auto` share. */
const SHARED_HYPERPARAMETERS = ["epochs", "batch_size", "max_length", "seed", "gradient_accumulation", "max_steps", "early_stopping", "published_epoch", "precision"];
/** Hyperparameters that a candidate of `auto` may have for itself. */
const CANDIDATE_HYPERPARAMETERS = ["learning_rate", "weight_decay", "warmup_ratio", "schedule", "max_grad_norm"];

/** Value that a user typed: a number, JSON or text. Modules are a list with commas, or one name or keyword. */
function parsedValue(name, text) {
  if (name === "target_modules" && text.includes(",") && !text.trim().startsWith("[")) {
    return text.split(",").map((item) => item.trim()).filter(Boolean);
  }
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export function shownValue(value) {
  if (value == null) return "";
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function group(query, prefix) {
  const found = {};
  for (const [name, text] of query) {
    if (!name.startsWith(prefix) || text === "") continue;
    const key = name.slice(prefix.length);
    found[key] = parsedValue(key, text);
  }
  return found;
}

/** An object with a type, where its type or one of its settings is given. */
function typed(query, name, prefix, resolved) {
  const settings = group(query, prefix);
  const type = query.get(name) || (Object.keys(settings).length ? resolved?.type : null);
  return type ? { type, ...settings } : null;
}

/** The request without what has its default. `resolved` is the validated job: its types belong to settings without a type. */
export function jobRequest(query, resolved) {
  const request = { dataset_id: query.get("dataset") };
  if (query.get("name")) request.name = query.get("name");
  const task = typed(query, "task", "t.", resolved?.task);
  if (task) request.task = task;
  const method = typed(query, "method", "m.", resolved?.method);
  if (method) request.method = method;
  if (query.get("from")) request.from_adapter = query.get("from");
  const columns = Object.fromEntries([...query].filter(([name, text]) => name.startsWith("c.") && text).map(([name, text]) => [name.slice(2), text]));
  if (Object.keys(columns).length) request.columns = columns;
  if (query.get("skip")) request.on_bad_rows = "skip";
  const hyperparameters = group(query, "h.");
  if (typeof hyperparameters.early_stopping === "number") hyperparameters.early_stopping = { patience: hyperparameters.early_stopping };
  if (Object.keys(hyperparameters).length) request.hyperparameters = hyperparameters;
  return { ...request, ...group(query, "x.") };
}

/** Names of the parameters with settings of the task, the method and the run. */
export function settingNames(query) {
  return [...query.keys()].filter((name) => /^[hmt]\./.test(name));
}

/** The query without settings: the job that it gives shows the types and the defaults. */
export function withoutSettings(query) {
  const names = settingNames(query);
  return new URLSearchParams([...query].filter(([name]) => !names.includes(name)));
}

/** Hyperparameters of a resolved job; for `auto` those that the candidates share. */
export function resolvedHyperparameters({ method, hyperparameters }) {
  // A resolved precision is left out where it is f32.
  if (method.type !== "auto") return { precision: "f32", ...hyperparameters };
  const resolved = { precision: "f32", ...method.candidates[0].hyperparameters };
  return Object.fromEntries(SHARED_HYPERPARAMETERS.map((name) => [name, resolved[name] ?? null]));
}

/** A method as a request takes it. */
function requestedMethod(method) {
  if (method.type !== "auto") return method;
  const candidates = method.candidates.map(({ hyperparameters, ...settings }) => ({
    ...settings, hyperparameters: Object.fromEntries(CANDIDATE_HYPERPARAMETERS.filter((name) => hyperparameters[name] != null).map((name) => [name, hyperparameters[name]])),
  }));
  return { ...method, candidates };
}

/** Query of the form that makes a job like this one again. `defaults` is the job that the server makes of only the dataset; `from` is the id of the
 * adapter that the job started from, or null where it started from none or the adapter is deleted. */
export function formQuery(job, defaults, from) {
  const query = new URLSearchParams({ dataset: job.dataset_id });
  if (job.name) query.set("name", job.name);
  for (const [field, column] of Object.entries(job.options.columns ?? {})) query.set(`c.${field}`, column);
  if (job.options.on_bad_rows === "skip") query.set("skip", "1");
  if (from) query.set("from", from);
  const differing = (values, standard, prefix) => {
    for (const [name, value] of Object.entries(values)) {
      const isSame = JSON.stringify(value) === JSON.stringify(standard?.[name]);
      if (name !== "type" && value != null && !isSame) query.set(prefix + name, typeof value === "string" ? value : JSON.stringify(value));
    }
  };
  const sameType = (name) => (defaults?.[name].type === job[name].type ? defaults[name] : null);
  query.set("task", job.task.type);
  differing(job.task, sameType("task"), "t.");
  if (!from) {
    query.set("method", job.method.type);
    differing(requestedMethod(job.method), sameType("method") && requestedMethod(defaults.method), "m.");
  }
  differing(job.hyperparameters, defaults && resolvedHyperparameters(defaults), "h.");
  if (JSON.stringify(job.validation) !== JSON.stringify(defaults?.validation)) query.set("x.validation", JSON.stringify(job.validation));
  if (Object.keys(job.metadata ?? {}).length) query.set("x.metadata", JSON.stringify(job.metadata));
  return query;
}
