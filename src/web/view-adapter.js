// One name: its versions side by side, where they come from, download and delete.

import { apiUrl, list, post, remove } from "./api.js";
import { el, replace, scrollable } from "./dom.js";
import { act, announce, confirmed } from "./feedback.js";
import { bytes, dateTime, number, shortVersion, words } from "./format.js";
import { metricNames } from "./adapter-metrics.js";
import { byName } from "./view-adapters.js";
import { go, href } from "./router.js";

export async function show(place, { rest, signal }) {
  const key = rest[0];
  const [adapters, jobs] = await Promise.all([list("adapters", 1000), list("jobs", 1000)]);
  const versions = byName(adapters).get(key);
  if (signal.aborted) return;
  if (!versions) {
    replace(place, el("h1", {}, "No such adapter"), el("p", {}, `No adapter has the name or id “${key}”. It may have been deleted.`), el("a", { href: "#/adapters" }, "All adapters"));
    return;
  }
  const problems = el("div");
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, versions[0].name ?? `Adapter ${key.slice(0, 8)}`),
      el("div", { class: "end" }, el("a", { class: "button primary", href: href("playground", { model: ["base", ...versions.slice(0, 3).map((one) => one.id)] }) }, "Compare in the playground"))),
    problems,
    el("div", { class: "card" },
      el("div", { class: "card-head" }, el("h2", {}, "Versions"), el("span", { class: "muted small" }, versions[0].name ? `The name refers to ${shortVersion(currentOf(versions).version)}` : "")),
      scrollable("Versions", versionTable(versions, jobs, problems, () => show(place, { rest, signal })))));
}

function versionTable(versions, jobs, problems, reload) {
  const metrics = metricNames(versions);
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
      row("Base", (version) => (version.base_verified ? "verified" : "names and shapes checked")),
      row("From", (version) => origin(version, jobs)),
      row("Created", (version) => dateTime(version.created_at)),
      row("Files", downloads),
      row("Train further", (version) => el("a", { href: href("new", { from: version.id, name: version.name }) }, "New job")),
      versions[0].name && row("The name refers to", (version) => activation(version, problems, reload)),
      row("Delete", (version) => deleteButton(version, versions, problems, reload))));
}

/** Where a version comes from: its dataset and its job, or an import. */
function origin(version, jobs) {
  if (!version.job_id) return "import";
  const job = jobs.find((one) => one.id === version.job_id);
  if (!job) return "job (deleted)";
  return [el("a", { href: href(`datasets/${job.dataset_id}`) }, "dataset"), " → ", el("a", { href: href(`jobs/${job.id}`) }, "job")];
}

function isLowerBetter(name) {
  return /loss|error|perplexity|mae|mse/.test(name);
}

function downloads(version) {
  const link = (format, text) => el("a", { href: apiUrl(`adapters/${version.id}/download?format=${format}`), download: true }, text);
  return el("div", { class: "row" }, link("peft", "PEFT"), version.method.type === "bottleneck" && link("adapterhub", "AdapterHub"));
}

function currentOf(versions) {
  return versions.find((version) => version.is_current) ?? versions[0];
}

/** Whether the name refers to the version, or the button that makes it so. */
function activation(version, problems, reload) {
  if (version.is_current) return el("span", { class: "badge succeeded" }, "this version");
  const button = el("button", { type: "button", "aria-label": `Let ${version.name} refer to version ${shortVersion(version.version)}` }, "Activate");
  button.addEventListener("click", () => act(button, problems, async () => {
    await post(`adapters/${version.id}/activate`);
    announce(`${version.name} refers to version ${shortVersion(version.version)}`);
    await reload();
  }));
  return button;
}

function deleteButton(version, versions, problems, reload) {
  const button = el("button", { type: "button", class: "danger", "aria-label": `Delete version ${shortVersion(version.version)}` }, "Delete");
  button.addEventListener("click", () => act(button, problems, async () => {
    const next = versions.find((other) => other !== version);
    const consequence = versions.length === 1
      ? "Requests that name this adapter get an error from then on."
      : version.is_current
        ? `Requests for “${version.name}” are then answered by ${shortVersion(next.version)}.`
        : "Requests that name this version get an error from then on.";
    if (!(await confirmed("Delete this version?", consequence, "Delete"))) return;
    await remove(`adapters/${version.id}`);
    announce("The version is deleted");
    if (versions.length === 1) go("adapters");
    else await reload();
  }));
  return button;
}
