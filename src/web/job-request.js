// Job request from the address of the form: every setting is a parameter, so that a reload or a link keeps the form.
//
// `name`, `task`, `method`, `from`, `skip` (bad rows), `c.FIELD` (columns), `t.NAME` (settings of the task), `m.NAME` (settings of the
// method), `h.NAME` (hyperparameters), `x.NAME` (other fields of the request, as JSON).

/** Value that a user typed: a number, JSON, a list with commas, or text. `sample` is a value of the same setting. */
function parsedValue(text, sample) {
  if (Array.isArray(sample) && !text.trim().startsWith("[")) return text.split(",").map((item) => item.trim()).filter(Boolean);
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

function group(query, prefix, spec = {}) {
  const found = {};
  for (const [name, text] of query) {
    if (!name.startsWith(prefix) || text === "") continue;
    const key = name.slice(prefix.length);
    found[key] = parsedValue(text, spec[key]);
  }
  return found;
}

/** An object with a type, where its type or one of its settings is given. */
function typed(query, name, prefix, resolved) {
  const settings = group(query, prefix, resolved);
  const type = query.get(name) || (Object.keys(settings).length ? resolved?.type : null);
  return type ? { type, ...settings } : null;
}

/** The request without what has its default. `resolved` is the validated job, whose values show the types. */
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
  const hyperparameters = group(query, "h.", resolved?.hyperparameters);
  if (typeof hyperparameters.early_stopping === "number") hyperparameters.early_stopping = { patience: hyperparameters.early_stopping };
  if (Object.keys(hyperparameters).length) request.hyperparameters = hyperparameters;
  return { ...request, ...group(query, "x.") };
}

/** Query of the form that makes a job like this one again. `defaults` is the job that the dataset alone gives; `from` is the id of the
 * adapter that the job started from. */
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
  query.set("task", job.task.type);
  differing(job.task, defaults?.task.type === job.task.type ? defaults.task : null, "t.");
  if (!job.from_adapter) {
    query.set("method", job.method.type);
    differing(job.method, defaults?.method.type === job.method.type ? defaults.method : null, "m.");
  }
  differing(job.hyperparameters, defaults?.hyperparameters, "h.");
  if (JSON.stringify(job.validation) !== JSON.stringify(defaults?.validation)) query.set("x.validation", JSON.stringify(job.validation));
  if (Object.keys(job.metadata ?? {}).length) query.set("x.metadata", JSON.stringify(job.metadata));
  return query;
}
