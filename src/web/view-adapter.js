// One name: its versions side by side, where they come from, download, shares and delete.

import { apiUrl, encoded, getJson, list, post, remove } from "./api.js";
import { versionCards } from "./adapter-version.js";
import { byName, fullName, referenceOf } from "./adapter-names.js";
import { card } from "./cards.js";
import { may, scopeNotice } from "./credential.js";
import { el, replace, scrollable } from "./dom.js";
import { act, announce, confirmed } from "./feedback.js";
import { bytes, dateTime, number, shortId, shortVersion, words } from "./format.js";
import { metricNames } from "./adapter-metrics.js";
import { go, href } from "./router.js";

export async function show(place, view) {
  const { rest, signal } = view;
  const key = rest[0];
  if (!may("adapters:read")) {
    replace(place, el("h1", {}, key), scopeNotice("The view of an adapter", ["adapters:read"]));
    return;
  }
  const versions = await versionsOf(key, signal);
  if (signal.aborted) return;
  if (!versions) {
    replace(place, el("h1", {}, "No such adapter"), el("p", {}, `No adapter has the name or id “${key}”. It may have been deleted.`), el("a", { href: "#/adapters" }, "All adapters"));
    return;
  }
  const jobs = await jobsOf(versions, signal);
  if (signal.aborted) return;
  const [newest] = versions;
  const active = versions.find((version) => version.is_current);
  const problems = el("div");
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, fullName(newest) ?? `Adapter ${shortId(newest.id)}`),
      newest.owner && el("span", { class: "muted" }, `Shared by ${newest.owner}, to read and use`),
      el("div", { class: "end" }, may("predict", "generate")
        && el("a", { class: "button primary", href: href("playground", { model: ["base", ...versions.slice(0, 3).map(referenceOf)] }) }, "Compare in the playground"))),
    problems,
    card("Versions", newest.name && active ? `Active version: ${shortVersion(active.version)}` : null,
      scrollable("Versions", versionTable(versions, jobs, problems, () => show(place, view)))),
    versionCards(versions, view));
}

/** Versions of a name among the newest 1,000 adapters, then among those that other owners share, or the one adapter with this name or
 * id. */
async function versionsOf(key, signal) {
  const own = byName(await list("adapters", 1000, { signal })).get(key);
  if (own) return own;
  const shared = await list("shared-adapters", 1000, { signal });
  const found = byName(shared).get(key) ?? shared.filter((adapter) => adapter.id === key);
  return found.length ? found : unlessDeleted(getJson(encoded`adapters/${key}`, { signal }).then((adapter) => [adapter]));
}

/** Jobs that trained the versions, by their id; null for deleted ones. Jobs of other owners are not shared. */
async function jobsOf(versions, signal) {
  if (!may("train") || versions[0].owner) return new Map();
  const ids = [...new Set(versions.map((version) => version.job_id).filter(Boolean))];
  const jobs = await Promise.all(ids.map((id) => unlessDeleted(getJson(encoded`jobs/${id}`, { signal }))));
  return new Map(ids.map((id, index) => [id, jobs[index]]));
}

/** The answer, or null where the server has no such resource. */
async function unlessDeleted(request) {
  try {
    return await request;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function versionTable(versions, jobs, problems, reload) {
  const metrics = metricNames(versions);
  const isOwn = !versions[0].owner;
  const best = new Map(metrics.map((name) => {
    const values = versions.map((one) => one.metrics?.validation?.[name]).filter((value) => typeof value === "number");
    return [name, isLowerBetter(name) ? Math.min(...values) : Math.max(...values)];
  }));
  const row = (title, cell) => el("tr", {}, el("th", { scope: "row", class: "capital" }, title), versions.map((version) => el("td", {}, cell(version))));
  const metric = (name) => (version) => {
    const value = version.metrics?.validation?.[name];
    const isBest = value === best.get(name) && versions.some((other) => other.metrics?.validation?.[name] !== value);
    return value == null ? "–" : isBest ? el("strong", { title: "Best of the versions" }, number(value), " ★") : number(value);
  };
  return el("table", { class: "versions" },
    el("caption", { class: "visually-hidden" }, "Versions side by side, newest first"),
    el("thead", {}, el("tr", {}, el("td"), versions.map((version) => el("th", { scope: "col" }, el("code", { title: version.version }, shortVersion(version.version)))))),
    el("tbody", {},
      row("Task", (version) => words(version.task.type)),
      row("Method", (version) => words(version.method.type)),
      metrics.map((name) => row(words(name), metric(name))),
      row("Labels", (version) => (version.labels.length ? number(version.labels.length) : "–")),
      row("Size", (version) => bytes(version.bytes)),
      row("Base", (version) => (version.base_verified ? "verified" : "not verified (names and shapes match)")),
      row("From", (version) => origin(version, jobs)),
      row("Created", (version) => dateTime(version.created_at)),
      row("Files", downloads),
      isOwn && may("train") && row("Train further", (version) => el("a", { href: href("new", { from: version.id, name: version.name }) }, "New job")),
      versions[0].name && row("Active version", (version) => activation(version, problems, reload)),
      isOwn && may("adapters:write") && row("Delete", (version) => deleteButton(version, versions, problems, reload))));
}

/** Where a version comes from: its dataset and its job, or an import. */
function origin(version, jobs) {
  if (!version.job_id) return "import";
  if (jobs.size === 0) return "job";
  const job = jobs.get(version.job_id);
  if (!job) return "job (deleted)";
  return [el("a", { href: href(`datasets/${job.dataset_id}`) }, "dataset"), " → ", el("a", { href: href(`jobs/${job.id}`) }, "job")];
}

function isLowerBetter(name) {
  return /loss|error|perplexity|mae|mse/.test(name);
}

function downloads(version) {
  const link = (format, text) => el("a", { href: apiUrl(encoded`adapters/${version.id}/download?format=${format}`), download: true }, text);
  return el("div", { class: "row" }, link("peft", "PEFT"), version.method.type === "bottleneck" && link("adapterhub", "AdapterHub"));
}

/** Mark of the active version, or the button that activates another. */
function activation(version, problems, reload) {
  if (version.is_current) return el("span", { class: "badge succeeded" }, "active");
  if (version.owner || !may("adapters:write")) return "–";
  const button = el("button", { type: "button", "aria-label": `Activate version ${shortVersion(version.version)} of ${version.name}` }, "Activate");
  button.addEventListener("click", () => act(button, problems, async () => {
    await post(encoded`adapters/${version.id}/activate`);
    announce(`Version ${shortVersion(version.version)} of ${version.name} is active`);
    await reload();
  }));
  return button;
}

function deleteButton(version, versions, problems, reload) {
  const button = el("button", { type: "button", class: "danger", "aria-label": `Delete version ${shortVersion(version.version)}` }, "Delete");
  button.addEventListener("click", () => act(button, problems, async () => {
    const next = versions.find((other) => other !== version);
    const consequence = versions.length === 1
      ? "Requests that name this adapter then get an error."
      : version.is_current
        ? `Requests for “${version.name}” are then answered by ${shortVersion(next.version)}.`
        : "Requests that name this version then get an error.";
    if (!(await confirmed("Delete this version?", consequence, "Delete"))) return;
    await remove(encoded`adapters/${version.id}`);
    announce("The version is deleted");
    if (versions.length === 1) go("adapters");
    else await reload();
  }));
  return button;
}
