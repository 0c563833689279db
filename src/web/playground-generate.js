// Generated text in the playground: the models stream in parallel, each in its own conversation.

import { send, serverEvents } from "./api.js";
import { conversationWith, keepConversation } from "./conversations.js";
import { el, field, replace } from "./dom.js";
import { number } from "./format.js";
import { setQuery } from "./router.js";
import { jsonSnippets, snippetTabs } from "./snippets.js";

const PARAMETERS = [
  { name: "temperature", hint: "0: greedy decoding", standard: 0 },
  { name: "top_p", hint: "Nucleus sampling threshold", standard: 1 },
  { name: "max_tokens", hint: "Maximum tokens of the answer", standard: 128 },
  { name: "seed", hint: "The same seed gives the same text", standard: "" },
];

/** Fields of the sampling parameters, kept in the address. */
export function chatSettings(view) {
  const { query } = view;
  const inputs = PARAMETERS.map(({ name, hint, standard }) => {
    const control = el("input", {
      type: "number", step: "any", min: "0", value: query.get(name) ?? "", placeholder: String(standard || (standard === 0 ? 0 : "random")),
      change: () => {
        if (control.value === "") query.delete(name);
        else query.set(name, control.value);
        setQuery(view);
      },
    });
    return field(name.replace("_", " "), control, { hint });
  });
  return el("details", {}, el("summary", {}, "Sampling"), el("div", { class: "fields" }, inputs));
}

export function sampling(query) {
  const found = {};
  for (const { name, standard } of PARAMETERS) {
    const text = query.get(name);
    if (text) found[name] = Number(text);
    else if (standard !== "") found[name] = standard;
  }
  return found;
}

function bubbles(messages) {
  return messages.map(({ role, content }) => {
    if (role === "user") return el("div", { class: "bubble user" }, content);
    return content ? el("div", { class: "bubble answer" }, content) : emptyNote();
  });
}

function emptyNote() {
  return el("p", { class: "muted" }, "(empty answer)");
}

/** Shows the conversation with the card's model; returns whether there is one. */
export function showConversation(card) {
  const messages = conversationWith(card.model.id);
  replace(card.content, bubbles(messages));
  return messages.length > 0;
}

/** Streams an answer into the card. With a chat template it is the next turn of the model's conversation. */
export async function generate(card, base, text, parameters, signal) {
  const model = card.model.reference ?? base.name;
  const path = base.chat ? "v1/chat/completions" : "v1/completions";
  const messages = [...(base.chat ? conversationWith(card.model.id) : []), { role: "user", content: text }];
  const body = { model, ...(base.chat ? { messages } : { prompt: text }), ...parameters };
  const bubble = el("div", { class: "bubble answer" });
  replace(card.content, base.chat && bubbles(messages), bubble);
  const store = () => {
    if (!base.chat) return;
    keepConversation(card.model.id, [...messages, { role: "assistant", content: bubble.textContent }]);
    card.hasTurn = true;
  };
  try {
    await streamAnswer(card, path, body, bubble, signal);
  } catch (error) {
    // A stopped answer is kept as a turn.
    if (bubble.textContent) store();
    else showConversation(card);
    throw error;
  }
  store();
  if (!bubble.textContent) bubble.replaceWith(emptyNote());
  card.content.append(el("details", {}, el("summary", {}, "API request"), snippetTabs(jsonSnippets(path, body))));
}

async function streamAnswer(card, path, body, bubble, signal) {
  const start = performance.now();
  const request = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ...body, stream: true }), signal };
  const response = await send(path, request);
  let first = null;
  let count = 0;
  for await (const event of serverEvents(response)) {
    if (event.data === "[DONE]") break;
    const chunk = JSON.parse(event.data);
    if (chunk.error) throw new Error(chunk.error.message);
    const piece = chunk.choices?.[0]?.delta?.content ?? chunk.choices?.[0]?.text ?? "";
    if (!piece) continue;
    first ??= performance.now();
    count += 1;
    bubble.append(piece);
    const seconds = (performance.now() - first) / 1000;
    card.latency.textContent = `first token ${number(first - start, 0)} ms${count > 1 ? ` · ${number((count - 1) / seconds, 1)} tokens/s` : ""}`;
  }
}
