// Playground: one input, answered by the base and by any adapters side by side.

import { getJson, list } from "./api.js";
import { el, field, replace } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { plural, shortVersion, words } from "./format.js";
import { setQuery } from "./router.js";
import { forgetConversations } from "./conversations.js";
import { chatSettings, generate, isGenerative, sampling, showConversation } from "./playground-generate.js";
import { predict } from "./playground-predict.js";

const SHOWN_ADAPTERS = 12;

export async function show(place, { query, signal }) {
  const [base, adapters] = await Promise.all([getJson("base"), list("adapters", 1000)]);
  if (signal.aborted) return;
  const models = [{ id: "base", title: base.name, note: "base model", adapter: null }, ...adapters.map((adapter) => ({
    id: adapter.id, title: adapter.name ?? adapter.id.slice(0, 8), note: `${words(adapter.task.type)} · ${words(adapter.method.type)} · ${shortVersion(adapter.version)}`, adapter,
  }))];
  if (!query.has("model")) for (const model of models.slice(0, 2)) query.append("model", model.id);
  const outputs = el("div", { class: "outputs" });
  const text = el("textarea", { rows: "4", value: query.get("text") ?? "", placeholder: base.is_causal_lm ? "Write a message" : "One text per line" });
  const run = el("button", { type: "submit", class: "primary" }, base.is_causal_lm ? "Send" : "Run");
  const stop = el("button", { type: "button", hidden: true }, "Stop");
  const settings = chatSettings(query);
  const chosenModels = () => models.filter((model) => query.getAll("model").includes(model.id));
  const hasGeneration = () => chosenModels().some((model) => isGenerative(model, base));
  const showSettings = () => (settings.hidden = !hasGeneration());
  const again = el("button", { type: "button", hidden: true }, "New conversation");
  const showConversations = () => {
    if (!base.chat) return;
    const cards = chosenModels().filter((model) => isGenerative(model, base)).map(outputCard);
    const shown = cards.filter(showConversation);
    again.hidden = shown.length === 0;
    replace(outputs, shown.map((card) => card.element));
  };
  const choose = (id, isChosen) => {
    const others = query.getAll("model").filter((one) => one !== id);
    query.delete("model");
    for (const one of isChosen ? [...others, id] : others) query.append("model", one);
    setQuery(query);
    showSettings();
    if (!running) showConversations();
  };

  let running = null;
  const submit = async (event) => {
    event?.preventDefault();
    const chosen = chosenModels();
    if (!text.value.trim() || chosen.length === 0) {
      replace(outputs, el("p", { class: "muted" }, chosen.length ? "Write an input first." : "Choose a model first."));
      return;
    }
    const input = text.value;
    const isChat = base.chat && chosen.every((model) => isGenerative(model, base));
    // What was said is in the conversation; what was predicted is asked again after a reload.
    if (isChat) query.delete("text");
    else query.set("text", input);
    setQuery(query);
    if (isChat) text.value = "";
    running?.abort();
    running = new AbortController();
    signal.addEventListener("abort", () => running?.abort());
    stop.hidden = !hasGeneration();
    again.hidden = true;
    const mine = running;
    const cards = chosen.map((model) => outputCard(model));
    replace(outputs, cards.map((card) => card.element));
    // The requests run in parallel; the server batches them.
    const isAnswered = await Promise.all(cards.map((card) => answer(card, base, input, sampling(query), mine.signal)));
    if (mine !== running) return;
    running = null;
    stop.hidden = true;
    again.hidden = !isChat;
    if (!isAnswered.includes(true) && !text.value) text.value = input;
    announce(`${plural(chosen.length, "answer")} shown`);
  };
  stop.addEventListener("click", () => running?.abort());
  again.addEventListener("click", () => {
    running?.abort();
    forgetConversations();
    showConversations();
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  });
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, "Playground")),
    el("form", { class: "card", submit },
      modelChoice(models, query, choose),
      field(base.is_causal_lm ? "Message" : "Input", text, { hint: base.is_causal_lm ? "Ctrl + Enter sends" : "Several lines are several inputs. Ctrl + Enter runs." }),
      settings, el("div", { class: "row" }, run, stop, again)),
    outputs);
  showSettings();
  showConversations();
  if (text.value.trim() && query.has("text") && !hasGeneration()) await submit();
}

function modelChoice(models, query, choose) {
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

function outputCard(model) {
  const latency = el("span", { class: "muted small" });
  const content = el("div", { class: "stack" }, el("p", { class: "muted" }, "…"));
  const element = el("section", { class: "card", "aria-label": model.title },
    el("div", { class: "card-head" }, el("h2", {}, model.title), el("span", { class: "muted small" }, model.note), el("div", { class: "end" }, latency)), content);
  return { model, element, content, latency };
}

/** Whether the model has answered. */
async function answer(card, base, text, parameters, signal) {
  try {
    if (isGenerative(card.model, base)) await generate(card, base, text, parameters, signal);
    else await predict(card, base, text, signal);
    return true;
  } catch (error) {
    if (error.name !== "AbortError") replace(card.content, errorNotice(error));
    else card.latency.textContent = "stopped";
    return false;
  }
}
