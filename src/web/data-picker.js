// First step of a new job: a file, pasted rows, or a stored dataset. A file is uploaded and checked at once; where the server cannot
// read it, the columns are chosen here.

import { upload } from "./api.js";
import { card } from "./cards.js";
import { el, field, replace, select } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { bytes, percent, plural } from "./format.js";
import { columnNames, pastedFile } from "./columns.js";
import { COMMON_FIELDS } from "./explain.js";

/** `onReady` gets the stored dataset, the file's columns, and the settings that it was read with. */
export function dataPicker({ datasets, onReady }) {
  const result = el("div", { class: "stack" });
  const use = (file) => checkFile(file, new Map(), result, onReady);
  return card("Data", null,
    dropZone("Drop a dataset here", "CSV, TSV, JSON, JSON lines, Parquet, Excel, CoNLL, FASTA, fastText; also .gz and .zip", use),
    pasteForm(use),
    datasets.length > 0 && storedChoice(datasets, (dataset) => onReady(dataset, [], new Map())),
    result);
}

/** Area to drop a file on, with a button for everyone else. */
export function dropZone(title, hint, onFile, accept) {
  const input = el("input", { type: "file", class: "visually-hidden", tabindex: "-1", "aria-hidden": "true", accept });
  input.addEventListener("change", () => {
    const [file] = input.files;
    // Without a value, the same file can be chosen again.
    input.value = "";
    if (file) onFile(file);
  });
  const zone = el("div", { class: "drop" },
    el("strong", {}, title), el("span", { class: "muted small" }, hint),
    el("button", { type: "button", class: "primary", click: () => input.click() }, "Choose a file"), input);
  const over = (isOver) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", isOver);
  };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  });
  return zone;
}

function pasteForm(use) {
  const text = el("textarea", { rows: "5", spellcheck: "false", placeholder: "text,label\nWhere is my card?,card_arrival" });
  const button = el("button", { type: "button", click: () => text.value.trim() && use(pastedFile(text.value)) }, "Check the rows");
  return el("details", {}, el("summary", {}, "Or paste rows"),
    el("div", { class: "stack" },
      field("Rows", text, { hint: "CSV with a header, tab-separated values copied from a spreadsheet, or JSON lines" }), el("div", {}, button)));
}

function storedChoice(datasets, use) {
  const options = datasets.map((dataset) => [dataset.id, `${dataset.file_name ?? dataset.id} (${plural(dataset.report.examples, "example")})`]);
  const choice = select([["", "Select …"], ...options], "", (id) => {
    const dataset = datasets.find((one) => one.id === id);
    if (dataset) use(dataset);
  });
  return el("details", {}, el("summary", {}, "Or use a stored dataset"), field("Stored dataset", choice));
}

let lastCheck = 0;
async function checkFile(file, settings, place, onReady) {
  lastCheck += 1;
  const mine = lastCheck;
  let columns = [];
  const bar = el("progress", { max: "1", value: "0", "aria-label": "Upload" });
  const text = el("span", { class: "muted small" }, "Uploading …");
  replace(place, el("div", { class: "stack" }, el("span", {}, `${file.name}, ${bytes(file.size)}`), bar, text));
  const form = new FormData();
  form.append("options", new Blob([JSON.stringify(datasetOptions(settings))], { type: "application/json" }));
  form.append("dataset", file, file.name);
  try {
    columns = await columnNames(file);
    const dataset = await upload("datasets", form, (share) => {
      bar.value = share;
      text.textContent = share < 1 ? `Uploading … ${percent(share, 0)}` : "The server checks every row …";
      if (share === 1) bar.removeAttribute("value");
    });
    // The user may have left the form, or chosen another file.
    if (mine !== lastCheck || !place.isConnected) return;
    announce(`${plural(dataset.report.examples, "example")} read`);
    onReady(dataset, columns, settings);
  } catch (error) {
    if (mine === lastCheck) replace(place, errorNotice(error), repairForm(file, columns, settings, place, onReady));
  }
}

function datasetOptions(settings) {
  const columns = Object.fromEntries([...settings].filter(([name]) => name.startsWith("c.")).map(([name, column]) => [name.slice(2), column]));
  const options = {};
  if (Object.keys(columns).length) options.columns = columns;
  if (settings.get("skip")) options.on_bad_rows = "skip";
  return options;
}

/** Choice of the columns, and of skipping invalid rows, for a file that the server refused. */
function repairForm(file, columns, settings, place, onReady) {
  const chosen = new Map(settings);
  const set = (name, value) => (value ? chosen.set(name, value) : chosen.delete(name));
  const choices = COMMON_FIELDS.map((name) =>
    field(name, select([["", "Automatic"], ...columns.map((column) => [column, column])], chosen.get(`c.${name}`) ?? "", (value) => set(`c.${name}`, value))));
  const skip = el("input", { type: "checkbox", checked: chosen.has("skip"), change: () => set("skip", skip.checked ? "1" : "") });
  const again = el("button", { type: "button", class: "primary", click: () => checkFile(file, chosen, place, onReady) }, "Check again");
  return el("div", { class: "stack" },
    columns.length > 0 && el("h3", {}, "Assign the columns"),
    columns.length > 0 && el("div", { class: "fields" }, choices),
    el("label", { class: "check" }, skip, "Skip invalid rows"),
    el("div", {}, again));
}
