// Owners: what they store, and their limits.

import { encoded, getJson, putJson } from "./api.js";
import { card, emptyCard, tile } from "./cards.js";
import { el, field, replace, scrollable, table } from "./dom.js";
import { announce, submitForm } from "./feedback.js";
import { bytes, dateTime, number } from "./format.js";
import { limitFields, limitsText, OWNER_LIMITS } from "./limits.js";
import { go, href } from "./router.js";

export async function ownerList(place, { signal }) {
  const { data: owners } = await getJson("owners", { signal });
  const numeric = (label) => ({ label, number: true });
  const headings = ["Owner", numeric("Datasets"), numeric("Rows"), numeric("Size"), numeric("Adapters"), numeric("Size of adapters"), "Own limits", "Since", "More"];
  const rows = owners.map(({ name, limits, storage, created_at: created }) => [
    el("a", { href: href(encoded`access/owners/${name}`) }, name), number(storage.datasets), number(storage.dataset_rows), bytes(storage.dataset_bytes),
    number(storage.adapters), bytes(storage.adapter_bytes), limitsText(limits), dateTime(created),
    el("div", { class: "row" }, el("a", { href: href("access", { owner: name }) }, "Keys"), el("a", { href: href("usage", { owner: name }) }, "Usage")),
  ]);
  const name = el("input", { autocomplete: "off", spellcheck: "false", required: true, placeholder: "acme" });
  const open = (event) => {
    event.preventDefault();
    go(encoded`access/owners/${name.value.trim()}`);
  };
  replace(place,
    rows.length
      ? el("div", { class: "card" }, scrollable("Owners", table(headings, rows, { className: "stacking", caption: "Owners by name" })))
      : emptyCard("No owner yet", "An owner exists as soon as something belongs to it."),
    card("Limits of a new owner", "They can be set before it has anything", el("form", { class: "stack", submit: open },
      el("div", { class: "fields" }, field("Owner", name)), el("div", {}, el("button", { type: "submit" }, "Set limits")))));
}

export async function ownerLimits(place, view) {
  const [, name] = view.rest;
  const owner = await getJson(encoded`owners/${name}`, { signal: view.signal });
  const { limits, storage, effective_limits: effective } = owner;
  const fields = limitFields(OWNER_LIMITS, limits, (limit) => (limits[limit] == null && effective[limit] != null ? `${number(effective[limit])} (default)` : "default"));
  const problems = el("div");
  const save = el("button", { type: "submit", class: "primary" }, "Save the limits");
  const submit = (event) => {
    event.preventDefault();
    const controls = Object.fromEntries(Object.entries(fields.controls).map(([limit, control]) => [`/${limit}`, control]));
    submitForm(save, problems, controls, async () => {
      await putJson(encoded`owners/${name}`, fields.read());
      announce(`The limits of ${name} are saved`);
      await ownerLimits(place, view);
      place.querySelector(".saved").textContent = "Saved";
    });
  };
  replace(place,
    el("dl", { class: "tiles" }, tile("Datasets", number(storage.datasets)), tile("Size of datasets", bytes(storage.dataset_bytes)),
      tile("Rows", number(storage.dataset_rows)), tile("Adapters", number(storage.adapters)), tile("Size of adapters", bytes(storage.adapter_bytes))),
    card("Limits", "An empty one is the default of the server's settings", el("form", { class: "stack", submit },
      el("div", { class: "fields" }, fields.elements), el("p", { class: "muted small" }, `In force: ${limitsText(effective)}`), problems,
      el("div", { class: "row" }, save, el("span", { class: "saved muted" })))),
    el("div", { class: "row" }, el("a", { class: "button", href: href("access", { owner: name }) }, "Its keys"),
      el("a", { class: "button", href: href("usage", { owner: name }) }, "Its usage"), el("a", { class: "button", href: href("access/owners") }, "All owners")));
}
