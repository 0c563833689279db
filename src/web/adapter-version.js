// Shares and lineage of one version of an adapter.

import { encoded, getJson, putJson } from "./api.js";
import { card } from "./cards.js";
import { credential, may } from "./credential.js";
import { el, field, linesOf, nameLines, replace, select } from "./dom.js";
import { announce, errorNotice, submitForm } from "./feedback.js";
import { dateTime, shortId, shortVersion, words } from "./format.js";
import { href, setQuery } from "./router.js";

/** Cards of the version that the address names, or else of the active one. */
export function versionCards(versions, view) {
  const { query } = view;
  const standard = versions.find((version) => version.is_current) ?? versions[0];
  const place = el("div", { class: "stack" });
  const showVersion = (id) => {
    const version = versions.find((one) => one.id === id) ?? standard;
    replace(place, !version.owner && sharesCard(version, view), lineageCard(version, view));
  };
  const options = versions.map((version) => [version.id, `${shortVersion(version.version)}, ${dateTime(version.created_at)}`]);
  const chosen = query.get("version") ?? standard.id;
  const choice = select(options, chosen, (id) => {
    query.set("version", id);
    setQuery(view);
    showVersion(id);
  });
  showVersion(chosen);
  return [versions.length > 1 && el("div", { class: "fields" }, field("Shares and lineage of version", choice)), place];
}

/** Fills an element with what a request answers, or with its error. */
async function fill(place, request, show, signal) {
  try {
    const answer = await request;
    if (!signal.aborted) replace(place, show(answer));
  } catch (error) {
    if (!signal.aborted) replace(place, errorNotice(error));
  }
}

function sharesCard(version, { signal }) {
  const place = el("div", { class: "stack" });
  const show = (shares) => (may("adapters:write") ? sharesForm(version, shares) : sharesText(version, shares));
  fill(place, getJson(encoded`adapters/${version.id}/shares`, { signal }), show, signal);
  return card("Shares", "Owners that may read, download and use this version", place);
}

function sharesText(version, { owners, everyone }) {
  const names = everyone ? ["every owner", ...owners] : owners;
  const reference = version.name ? `${credential().owner}/${version.name}` : version.id;
  if (names.length === 0) return el("p", {}, "Shared with nobody");
  return el("p", {}, `Shared with ${names.join(", ")}, who refer to it by `, el("code", {}, version.is_current ? reference : version.id), ".");
}

function sharesForm(version, shares) {
  const owners = nameLines(shares.owners, "acme");
  const everyone = el("input", { type: "checkbox", checked: shares.everyone });
  const save = el("button", { type: "submit" }, "Save the shares");
  const problems = el("div");
  const text = el("div", {}, sharesText(version, shares));
  const submit = (event) => {
    event.preventDefault();
    submitForm(save, problems, { "/owners": owners }, async () => {
      const saved = await putJson(encoded`adapters/${version.id}/shares`, { owners: linesOf(owners), everyone: everyone.checked });
      owners.value = saved.owners.join("\n");
      replace(text, sharesText(version, saved));
      announce("The shares are saved");
    });
  };
  return el("form", { class: "stack", submit }, text,
    el("div", { class: "fields" }, field("Owners", owners, { hint: "One name in a line" })),
    el("label", { class: "check" }, everyone, "Every owner"), problems, el("div", {}, save));
}

function lineageCard(version, { signal }) {
  const place = el("div", { class: "stack" });
  const show = ({ data }) => data.map(lineageEntry);
  fill(place, getJson(encoded`adapters/${version.id}/lineage`, { signal }), show, signal);
  return card("Lineage", version.owner ? "The job and the datasets of another owner are not shared" : "What this version was made of, and by whom", place);
}

/** An ancestor with its job, datasets and base. */
function lineageEntry(entry, index) {
  const { adapter, job, datasets } = entry;
  const linked = (path, text) => (may("train") ? el("a", { href: href(path) }, text) : text);
  const dataset = ({ id, hash, file_name: file }) => el("div", {}, linked(`datasets/${id}`, file ?? shortId(id)), " ", el("code", { class: "small" }, `sha256:${hash}`));
  const rows = [
    ["Version", el("code", {}, entry.version)],
    ["Created", entry.created_at && dateTime(entry.created_at)],
    ["By", entry.created_by && el("code", {}, entry.created_by)],
    ["Job", job && linked(`jobs/${job.id}`, shortId(job.id))],
    ["Method", job && words(job.spec.method.type)],
    ["Datasets", datasets.length > 0 && datasets.map(dataset)],
    ["Base", entry.base && el("code", {}, entry.base)],
    ["Trained from", entry.parent && el("code", {}, entry.parent)],
  ];
  return el("div", { class: "stack" },
    index > 0 && el("h3", {}, "Trained from ", adapter ? adapterLink(adapter) : "a deleted adapter"),
    el("dl", { class: "settings-list" }, rows.filter(([, value]) => value).map(([title, value]) => [el("dt", {}, title), el("dd", {}, value)])),
    job && el("details", {}, el("summary", {}, "Specification of the job"), el("pre", { tabindex: "0" }, JSON.stringify(job.spec, null, 2))));
}

function adapterLink({ id, name }) {
  return el("a", { href: href(encoded`adapters/${name ?? id}`, { version: id }) }, name ?? `unnamed (${shortId(id)})`);
}
