// Adapters by name, those that other owners share, and the import of an archive.

import { list, upload } from "./api.js";
import { card, emptyCard } from "./cards.js";
import { may, scopeNotice } from "./credential.js";
import { el, field, replace, scrollable, table } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { bytes, dateTime, number, shortId, shortVersion, words } from "./format.js";
import { dropZone } from "./data-picker.js";
import { mainMetric } from "./adapter-metrics.js";
import { byName, fullName, referenceOf } from "./adapter-names.js";
import { go, href } from "./router.js";

export async function show(place, { signal }) {
  const content = may("adapters:read") ? await adapterCards(signal) : scopeNotice("The list of adapters", ["adapters:read"]);
  if (signal.aborted) return;
  replace(place, el("div", { class: "page-head" }, el("h1", {}, "Adapters")), content, may("adapters:write") && importCard());
}

async function adapterCards(signal) {
  const [own, shared] = await Promise.all(["adapters", "shared-adapters"].map((path) => list(path, 1000, { signal })));
  const newJob = may("train") && el("a", { class: "button primary", href: "#/new" }, "New job");
  return [
    own.length
      ? el("div", { class: "card" }, scrollable("Adapters", adapterTable(own, "Adapters by name")))
      : emptyCard("No adapter yet", "Train one, or import a PEFT folder as a zip or .tar.gz file.", newJob),
    shared.length > 0 && card("Shared by other owners", "To read and use", scrollable("Shared adapters", adapterTable(shared, "Adapters of other owners by name"))),
  ];
}

function adapterTable(adapters, caption) {
  const mayTry = may("predict", "generate");
  const rows = [...byName(adapters)].map(([key, versions]) => {
    const [newest] = versions;
    return [
      el("a", { href: href(`adapters/${encodeURIComponent(key)}`) }, fullName(newest) ?? `unnamed (${shortId(newest.id)})`),
      number(versions.length), words(newest.task.type), words(newest.method.type), mainMetric(newest), bytes(newest.bytes), dateTime(newest.created_at),
      mayTry && el("a", { href: href("playground", { model: ["base", referenceOf(newest)] }) }, "Try"),
    ].filter((cell) => cell !== false);
  });
  const headings = ["Name", { label: "Versions", number: true }, "Task", "Method", "Newest result", { label: "Size", number: true }, "Created", mayTry && "Playground"];
  return table(headings.filter(Boolean), rows, { className: "stacking", caption });
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
      if (!may("adapters:read")) replace(result, el("p", { class: "notice" }, `Imported and verified: ${adapter.name ?? adapter.id}, version ${shortVersion(adapter.version)}.`));
      else go(`adapters/${encodeURIComponent(adapter.name ?? adapter.id)}`);
    } catch (error) {
      replace(result, errorNotice(error));
    }
  };
  return card("Import an adapter", null,
    el("div", { class: "fields" }, field("Name", name, { hint: "A name that exists gets a new version" })),
    dropZone("Drop a .zip or .tar.gz file here", "adapter_config.json and adapter_model.safetensors, as PEFT writes them", importFile, ".zip,.tar.gz,.tgz,.gz"),
    result);
}
