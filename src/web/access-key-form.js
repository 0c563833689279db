// Form of a new key.

import { getJson, postJson } from "./api.js";
import { card } from "./cards.js";
import { el, field, linesOf, nameLines, replace } from "./dom.js";
import { submitForm } from "./feedback.js";
import { limitFields, REQUEST_LIMITS } from "./limits.js";
import { newKeyCard } from "./new-key.js";
import { href } from "./router.js";

const SCOPES = {
  predict: "predictions, embeddings, reranking, tokenization",
  generate: "generated text",
  train: "datasets, files and jobs, also reading them",
  "adapters:read": "list, get and download adapters",
  "adapters:write": "import, activate, share and delete adapters",
  metrics: "metrics, for Prometheus",
  admin: "keys, owners, the audit log, the usage of all owners",
};

export async function keyForm(place, { query, signal }) {
  const owners = (await getJson("owners", { signal })).data.map((owner) => owner.name);
  const form = formParts(owners, query.get("owner") ?? "");
  const problems = el("div");
  const create = el("button", { type: "submit", class: "primary" }, "Create the key");
  const submit = (event) => {
    event.preventDefault();
    submitForm(create, problems, form.controls, async () => {
      const created = await postJson("keys", form.read());
      replace(place, newKeyCard(created), el("div", {}, el("a", { class: "button", href: href("access") }, "All keys")));
      place.querySelector("input").focus();
    });
  };
  const back = el("a", { class: "button", href: href("access") }, "Back to the keys");
  replace(place, el("form", { class: "stack", submit }, form.elements, problems, el("div", { class: "row" }, create, back)));
}

function formParts(owners, chosenOwner) {
  const names = el("datalist", { id: "owner-names" }, owners.map((name) => el("option", { value: name })));
  const text = (attributes) => el("input", { autocomplete: "off", spellcheck: "false", ...attributes });
  const owner = text({ list: names.id, required: true, placeholder: "acme", value: chosenOwner });
  const name = text({ required: true, maxlength: "100", placeholder: "support application" });
  const adapters = nameLines([], "support-*");
  const expires = el("input", { type: "datetime-local" });
  const limits = limitFields(REQUEST_LIMITS, {}, () => "no limit");
  const scopes = Object.entries(SCOPES).map(([scope, allowed]) => {
    const input = el("input", { type: "checkbox", value: scope });
    return { input, element: el("label", { class: "check" }, input, el("span", {}, scope, el("span", { class: "muted small" }, ` ${allowed}`))) };
  });
  const elements = [
    card("Key", null, names, el("div", { class: "fields" },
      field("Owner", owner, { hint: "The key acts for this owner, which exists from its first key on" }),
      field("Name", name, { hint: "What the key is for" }),
      field("Expires", expires, { hint: "Empty: never" }))),
    card("Scopes and adapters", null, el("fieldset", { class: "models" }, el("legend", { class: "label" }, "Scopes"), scopes.map((scope) => scope.element)),
      el("div", { class: "fields" }, field("Adapters", adapters, { hint: "One name in a line; * stands for any characters, and owner/name for an adapter that another owner shares. Empty: all" }))),
    card("Limits", "Beside those of the owner", el("div", { class: "fields" }, limits.elements)),
  ];
  const read = () => ({
    owner: owner.value.trim(), name: name.value.trim(), scopes: scopes.filter(({ input }) => input.checked).map(({ input }) => input.value),
    adapters: linesOf(adapters).length ? linesOf(adapters) : null, limits: limits.read(), expires_at: expires.value ? new Date(expires.value).toISOString() : null,
  });
  const limitControls = Object.entries(limits.controls).map(([limit, control]) => [`/limits/${limit}`, control]);
  const controls = { "/owner": owner, "/name": name, "/adapters": adapters, "/expires_at": expires, ...Object.fromEntries(limitControls) };
  return { elements, read, controls };
}
