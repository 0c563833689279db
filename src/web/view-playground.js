// Playground: one input, answered by the base and by any adapters side by side.

import { getJson } from "./api.js";
import { card } from "./cards.js";
import { forgetConversations } from "./conversations.js";
import { el, field, replace, setText } from "./dom.js";
import { announce, errorNotice } from "./feedback.js";
import { plural } from "./format.js";
import { chatSettings, generate, sampling, showConversation } from "./playground-generate.js";
import { isAllowed, isChat, modelChoice, readModels } from "./playground-models.js";
import { predict } from "./playground-predict.js";
import { setQuery } from "./router.js";

export async function show(place, view) {
  const base = await getJson("base", { signal: view.signal });
  const models = await readModels(base, view.signal);
  if (view.signal.aborted) return;
  const playground = new Playground(view, base, models);
  replace(place, playground.elements());
  playground.showActions();
  playground.arrange();
  await playground.repeat();
}

class Playground {
  constructor(view, base, models) {
    const { query } = view;
    if (!query.has("model")) for (const model of models.filter(isAllowed).slice(0, 2)) query.append("model", model.id);
    /** Output cards by the id of their model; the run that is going on: what stops it, and the promise of its end. */
    Object.assign(this, { view, query, base, models, cards: new Map(), stopping: null, finished: null, isWaiting: false });
    this.text = el("textarea", { rows: "4", value: query.get("text") ?? "", placeholder: base.is_causal_lm ? "Write a message" : "One text per line" });
    this.text.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.submit(event));
    this.stop = el("button", { type: "button", hidden: true, click: () => this.stopping?.abort() }, "Stop");
    this.again = el("button", { type: "button", hidden: true, click: () => this.startAgain() }, "New conversation");
    this.settings = chatSettings(view);
    this.hint = el("p", { class: "muted", role: "status" });
    this.outputs = el("div", { class: "outputs" });
  }

  elements() {
    const { base, text, settings, stop, again } = this;
    const run = el("button", { type: "submit", class: "primary" }, base.is_causal_lm ? "Send" : "Run");
    const hint = base.is_causal_lm ? "Ctrl + Enter sends" : "Several lines are several inputs. Ctrl + Enter runs.";
    return [
      el("div", { class: "page-head" }, el("h1", {}, "Playground")),
      el("form", { class: "card", submit: (event) => this.submit(event) },
        modelChoice(this.models, this.query, (id, isChosen) => this.choose(id, isChosen)),
        field(base.is_causal_lm ? "Message" : "Input", text, { hint }),
        settings, el("div", { class: "row" }, run, stop, again, this.hint)),
      this.outputs,
    ];
  }

  chosen() {
    return this.models.filter((model) => isAllowed(model) && this.query.getAll("model").includes(model.id));
  }

  choose(id, isChosen) {
    const others = this.query.getAll("model").filter((one) => one !== id);
    this.query.delete("model");
    for (const one of isChosen ? [...others, id] : others) this.query.append("model", one);
    setQuery(this.view);
    this.showActions();
    if (!this.stopping) this.arrange();
  }

  showActions() {
    const isGenerating = this.chosen().some((model) => model.isGenerative);
    this.settings.hidden = !isGenerating;
    this.stop.hidden = !(this.stopping && isGenerating);
  }

  /** Shows the cards of the chosen models that have an answer or a conversation. */
  arrange() {
    const { base, cards } = this;
    const chosen = this.chosen();
    for (const model of chosen) {
      const output = outputCard(model);
      if (!cards.has(model.id) && isChat(model, base) && showConversation(output)) cards.set(model.id, output);
    }
    const shown = chosen.filter((model) => cards.has(model.id));
    for (const id of [...cards.keys()]) if (!shown.some((model) => model.id === id)) cards.delete(id);
    replace(this.outputs, shown.map((model) => cards.get(model.id).element));
    this.again.hidden = !shown.some((model) => isChat(model, base));
  }

  /** Chat messages are stored in the conversation; predictions are repeated after a reload. */
  async repeat() {
    const hasGeneration = this.chosen().some((model) => model.isGenerative);
    if (this.query.has("text") && this.text.value.trim() && !hasGeneration) await this.submit();
  }

  async submit(event) {
    event?.preventDefault();
    const chosen = this.chosen();
    const input = this.text.value;
    const isReady = input.trim() && chosen.length > 0;
    setText(this.hint, isReady ? "" : chosen.length ? "Write an input first." : "Select a model first.");
    if (!isReady || this.isWaiting) return;
    await this.stopRun();
    if (this.view.signal.aborted) return;
    this.finished = this.run(chosen, input);
    await this.finished;
  }

  /** Stops the run that is going on, and waits until its turns are stored. */
  async stopRun() {
    this.isWaiting = true;
    this.stopping?.abort();
    await this.finished;
    this.isWaiting = false;
  }

  async startAgain() {
    await this.stopRun();
    forgetConversations();
    for (const model of this.models) if (isChat(model, this.base)) this.cards.delete(model.id);
    this.arrange();
    this.text.focus();
  }

  async run(chosen, input) {
    const { base, query, view } = this;
    const isConversation = chosen.every((model) => isChat(model, base));
    if (isConversation) query.delete("text");
    else query.set("text", input);
    setQuery(view);
    if (isConversation) this.text.value = "";
    this.stopping = new AbortController();
    const signal = AbortSignal.any([view.signal, this.stopping.signal]);
    this.cards = new Map(chosen.map((model) => [model.id, outputCard(model)]));
    this.again.hidden = true;
    this.showActions();
    const cards = [...this.cards.values()];
    replace(this.outputs, cards.map((output) => output.element));
    // The requests run in parallel; the server batches them.
    await Promise.all(cards.map((output) => answer(output, base, input, sampling(query), signal)));
    this.stopping = null;
    if (view.signal.aborted) return;
    this.showActions();
    this.arrange();
    // A message that is in no conversation can be sent again.
    if (isConversation && !cards.some((output) => output.hasTurn) && !this.text.value) this.text.value = input;
    announce(`${plural(chosen.length, "answer")} shown`);
  }
}

function outputCard(model) {
  const latency = el("span", { class: "muted small" });
  const content = el("div", { class: "stack" }, el("p", { class: "muted" }, "…"));
  const note = [el("span", { class: "muted small" }, model.note), el("div", { class: "end" }, latency)];
  return { model, element: card(model.title, note, content), content, latency, hasTurn: false };
}

async function answer(output, base, text, parameters, signal) {
  try {
    if (output.model.isGenerative) await generate(output, base, text, parameters, signal);
    else await predict(output, text, signal);
  } catch (error) {
    if (error.name === "AbortError") output.latency.textContent = "stopped";
    else if (output.model.isGenerative) output.content.append(errorNotice(error));
    else replace(output.content, errorNotice(error));
  }
}
