// Audit log: who created, changed or deleted what.

import { apiUrl, getPage, server } from "./api.js";
import { emptyCard } from "./cards.js";
import { el, field, replace, scrollable, table } from "./dom.js";
import { dateTime } from "./format.js";
import { go, href } from "./router.js";

const PAGE = 100;
const FILTERS = ["owner", "action", "since", "until"];

/** Page of entries; the address has its filters and where it begins. */
export async function auditLog(place, { query, signal }) {
  const parameters = Object.fromEntries([...FILTERS, "after"].map((name) => [name, query.get(name) ?? ""]));
  const { data: entries, next } = await getPage("audit", parameters, PAGE, { signal });
  const headings = ["Time", "Owner", "Credential", "Action", "Object", "Status", "Address", "Request"];
  const rows = entries.map((entry) => [
    dateTime(entry.created_at, "medium"), entry.owner ?? "–", el("code", {}, entry.credential ?? "–"), unbroken(entry.action), el("code", {}, entry.object ?? "–"),
    el("span", { class: `badge ${entry.status < 400 ? "succeeded" : "failed"}` }, entry.status), unbroken(entry.client_address ?? "–"), el("code", {}, entry.request_id),
  ]);
  const filtered = Object.fromEntries(FILTERS.map((name) => [name, parameters[name]]));
  replace(place, filterForm(query, entries),
    rows.length
      ? el("div", { class: "card" }, scrollable("Audit log", table(headings, rows, { className: "stacking small", caption: "Entries, newest first" })))
      : emptyCard("No entry", "No call of this kind has created, changed or deleted something."),
    el("div", { class: "row" },
      parameters.after && el("a", { class: "button", href: href("access/audit", filtered) }, "Newest entries"),
      next && el("a", { class: "button", href: href("access/audit", { ...filtered, after: next }) }, "Older entries"),
      rows.length > 0 && el("a", { class: "button", href: csvUrl(parameters), download: "audit.csv" }, "CSV of this page")));
}

function unbroken(text) {
  return el("span", { class: "unbroken" }, text);
}

function csvUrl(parameters) {
  const all = { ...parameters, limit: server.acceptsPageSize ? PAGE : "", format: "csv" };
  return apiUrl(`audit?${new URLSearchParams(Object.entries(all).filter(([, value]) => value))}`);
}

function filterForm(query, entries) {
  const actions = el("datalist", { id: "audit-actions" }, [...new Set(entries.map((entry) => entry.action))].sort().map((action) => el("option", { value: action })));
  const text = (attributes) => el("input", { autocomplete: "off", spellcheck: "false", ...attributes });
  const controls = {
    owner: text({ value: query.get("owner"), placeholder: "all" }),
    action: text({ value: query.get("action"), placeholder: "all", list: actions.id }),
    since: el("input", { type: "datetime-local", value: localTime(query.get("since")) }),
    until: el("input", { type: "datetime-local", value: localTime(query.get("until")) }),
  };
  const submit = (event) => {
    event.preventDefault();
    const time = ({ value }) => (value ? new Date(value).toISOString() : "");
    go("access/audit", { owner: controls.owner.value.trim(), action: controls.action.value.trim(), since: time(controls.since), until: time(controls.until) });
  };
  return el("form", { class: "card", submit }, actions,
    el("div", { class: "fields" }, field("Owner", controls.owner), field("Action", controls.action, { hint: "Operation id, such as create_job" }),
      field("Since", controls.since), field("Until", controls.until)),
    el("div", {}, el("button", { type: "submit" }, "Filter")));
}

/** Time of the address as the control of a local time has it. */
function localTime(text) {
  const time = text ? new Date(text) : null;
  if (!time || Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
