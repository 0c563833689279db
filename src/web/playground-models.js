// Models of the playground: the base and the adapters, and the choice among them.

import { el } from "./dom.js";
import { shortId, shortVersion, words } from "./format.js";

const SHOWN_ADAPTERS = 12;

export function modelsOf(base, adapters) {
  const models = adapters.map((adapter) => ({
    id: adapter.id, title: adapter.name ?? shortId(adapter.id), note: `${words(adapter.task.type)} · ${words(adapter.method.type)} · ${shortVersion(adapter.version)}`, adapter,
  }));
  return [{ id: "base", title: base.name, note: "base model", adapter: null }, ...models];
}

/** Returns whether a model answers with text. */
export function isGenerative({ adapter }, base) {
  return base.is_causal_lm && (!adapter || ["causal_language_model", "preference"].includes(adapter.task.type));
}

/** Returns whether a model answers with the next turn of a conversation. */
export function isChat(model, base) {
  return base.chat && isGenerative(model, base);
}

export function modelChoice(models, query, choose) {
  const chip = (model) => {
    const input = el("input", { type: "checkbox", checked: query.getAll("model").includes(model.id), change: () => choose(model.id, input.checked) });
    return el("label", { class: "chip" }, input, model.title, el("span", { class: "muted small" }, model.note));
  };
  const isChosen = (model) => query.getAll("model").includes(model.id);
  const first = models.filter((model, index) => index < SHOWN_ADAPTERS || isChosen(model));
  const rest = models.filter((model) => !first.includes(model));
  return el("fieldset", { class: "models" }, el("legend", { class: "label" }, "Models"),
    el("div", { class: "chips" }, first.map(chip)),
    rest.length > 0 && el("details", {}, el("summary", {}, `${rest.length} more`), el("div", { class: "chips" }, rest.map(chip))));
}
