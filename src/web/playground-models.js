// Models of the playground: the base and the adapters, and the choice among them.

import { getJson, list } from "./api.js";
import { fullName, referenceOf } from "./adapter-names.js";
import { may } from "./credential.js";
import { el } from "./dom.js";
import { shortId, shortVersion, words } from "./format.js";

const SHOWN_ADAPTERS = 12;
const GENERATIVE_TASKS = ["causal_language_model", "preference"];

/** The base model, the owner's adapters and those that other owners share: `{id, title, note, reference, isGenerative, isEmbedding}`, where
 * `reference` is null for the base. */
export async function readModels(base, signal) {
  return [
    { id: "base", title: base.name, note: "base model", reference: null, isGenerative: base.is_causal_lm, isEmbedding: true },
    ...(may("adapters:read") ? await readAdapters(base, signal) : await readNames(signal)),
  ];
}

async function readAdapters(base, signal) {
  const [own, shared] = await Promise.all(["adapters", "shared-adapters"].map((path) => list(path, 1000, { signal })));
  return [...own, ...shared].map((adapter) => ({
    id: referenceOf(adapter), title: fullName(adapter) ?? shortId(adapter.id), reference: referenceOf(adapter),
    note: `${words(adapter.task.type)} · ${words(adapter.method.type)} · ${shortVersion(adapter.version)}`,
    isGenerative: base.is_causal_lm && GENERATIVE_TASKS.includes(adapter.task.type), isEmbedding: adapter.task.type === "embedding",
  }));
}

/** Without the scope for details of adapters, their names are known. */
async function readNames(signal) {
  const { data } = await getJson("v1/models", { signal });
  return data.filter((model) => model.owned_by === "adapter").map(({ id, root, capabilities }) => ({
    id: root, title: id, note: "adapter", reference: root,
    isGenerative: capabilities.includes("completions"), isEmbedding: capabilities.includes("embeddings"),
  }));
}

/** Returns whether a model answers with the next turn of a conversation. */
export function isChat(model, base) {
  return base.chat && model.isGenerative;
}

/** Scope that requests to the model need. */
function scopeOf(model) {
  return model.isGenerative ? "generate" : "predict";
}

export function isAllowed(model) {
  return may(scopeOf(model));
}

export function modelChoice(models, query, choose) {
  const chip = (model) => {
    const note = isAllowed(model) ? model.note : `${model.note} · needs the scope ${scopeOf(model)}`;
    const input = el("input", { type: "checkbox", checked: isChosen(model), disabled: !isAllowed(model), change: () => choose(model.id, input.checked) });
    return el("label", { class: "chip" }, input, model.title, el("span", { class: "muted small" }, note));
  };
  const isChosen = (model) => isAllowed(model) && query.getAll("model").includes(model.id);
  const first = models.filter((model, index) => index < SHOWN_ADAPTERS || isChosen(model));
  const rest = models.filter((model) => !first.includes(model));
  return el("fieldset", { class: "models" }, el("legend", { class: "label" }, "Models"),
    el("div", { class: "chips" }, first.map(chip)),
    rest.length > 0 && el("details", {}, el("summary", {}, `${rest.length} more`), el("div", { class: "chips" }, rest.map(chip))));
}
