// Adapters by name, and the import of a zip.

import { list, upload } from "./api.js";
import { card, emptyCard } from "./cards.js";
import { el, field, replace, scrollable, table } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { bytes, dateTime, number, shortId, words } from "./format.js";
import { dropZone } from "./data-picker.js";
import { mainMetric } from "./adapter-metrics.js";
import { go, href } from "./router.js";

/** Versions of each name, newest first; an unnamed adapter is an entry of its own. */
export function byName(adapters) {
  const names = new Map();
  for (const adapter of adapters) {
    const key = adapter.name ?? adapter.id;
    if (!names.has(key)) names.set(key, []);
    names.get(key).push(adapter);
  }
  return names;
}

export async function show(place) {
  const adapters = await list("adapters", 1000);
  const rows = [...byName(adapters)].map(([key, versions]) => {
    const [newest] = versions;
    return [
      el("a", { href: href(`adapters/${encodeURIComponent(key)}`) }, newest.name ?? `unnamed (${shortId(newest.id)})`),
      number(versions.length), words(newest.task.type), words(newest.method.type), mainMetric(newest), bytes(newest.bytes), dateTime(newest.created_at),
      el("a", { href: href("playground", { model: ["base", newest.id] }) }, "Try"),
    ];
  });
  const headings = ["Name", { label: "Versions", number: true }, "Task", "Method", "Newest result", { label: "Size", number: true }, "Created", "Playground"];
  const content = rows.length
    ? el("div", { class: "card" }, scrollable("Adapters", table(headings, rows, { className: "stacking", caption: "Adapters by name" })))
    : emptyCard("No adapter yet", "Train one, or import a PEFT folder as a zip or .tar.gz file.", el("a", { class: "button primary", href: "#/new" }, "New job"));
  replace(place, el("div", { class: "page-head" }, el("h1", {}, "Adapters")), content, importCard());
}

function importCard() {
  const name = el("input", { autocomplete: "off", spellcheck: "false", placeholder: "questions" });
  const result = el("div", { class: "stack" });
  const importFile = async (file) => {
    const bar = el("progress", { max: "1", value: "0", "aria-label": "Upload" });
    const form = new FormData();
    const options = name.value.trim() ? { name: name.value.trim() } : {};
    form.append("options", new Blob([JSON.stringify(options)], { type: "application/json" }));
    form.append("adapter", file, file.name);
    replace(result, el("span", {}, `Importing ${file.name} …`), bar);
    try {
      const adapter = await upload("adapters", form, (share) => (bar.value = share));
      if (!result.isConnected) return;
      announce("The adapter is imported and verified");
      go(`adapters/${encodeURIComponent(adapter.name ?? adapter.id)}`);
    } catch (error) {
      replace(result, errorNotice(error));
    }
  };
  return card("Import an adapter", null,
    el("div", { class: "fields" }, field("Name", name, { hint: "A name that exists gets a new version" })),
    dropZone("Drop a .zip or .tar.gz file here", "adapter_config.json and adapter_model.safetensors, as PEFT writes them", importFile, ".zip,.tar.gz,.tgz,.gz"),
    result);
}
