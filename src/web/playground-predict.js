// Answers of /predict in the playground: labels with bars, numbers, marked entities, fills, and similarities of embeddings.

import { postJson } from "./api.js";
import { el, replace, scrollable } from "./dom.js";
import { number, percent } from "./format.js";
import { bar } from "./report.js";
import { jsonSnippets, snippetTabs } from "./snippets.js";

const TOP = 5;

/** Sends the lines to `/predict` and shows the answer in the card. */
export async function predict(card, text, signal) {
  const inputs = text.split("\n").map((line) => line.trim()).filter(Boolean);
  const { reference, isEmbedding } = card.model;
  const path = reference ? `predict?adapter=${encodeURIComponent(reference)}` : "predict";
  const body = isEmbedding ? { inputs } : { inputs, top_k: TOP };
  const start = performance.now();
  const answer = await postJson(path, body, { signal });
  card.latency.textContent = `${number(performance.now() - start, 0)} ms`;
  const code = el("details", {}, el("summary", {}, "API request"), snippetTabs(jsonSnippets(path, body)));
  replace(card.content, predictionsView(inputs, answer.predictions), code);
}

function predictionsView(inputs, predictions) {
  if (predictions.every((prediction) => prediction.embedding)) return similarityView(inputs, predictions.map((prediction) => prediction.embedding));
  return predictions.map((prediction, index) => el("div", { class: "stack" },
    inputs.length > 1 && el("p", { class: "small muted" }, inputs[index]),
    predictionView(inputs[index], prediction),
    prediction.truncated && el("p", { class: "small muted" }, "The input was cut at the adapter's max_length.")));
}

function predictionView(input, prediction) {
  if (prediction.top) return el("div", {}, prediction.top.map((label) => bar(label.label, label.score, percent(label.score))));
  if (prediction.labels) {
    if (!prediction.labels.length) return el("p", { class: "muted" }, "No label");
    return el("div", {}, prediction.labels.map((label) => bar(label.label, label.score, percent(label.score))));
  }
  if (prediction.value != null) return el("p", {}, el("strong", {}, number(prediction.value)));
  if (prediction.entities) return markedText(input, prediction.entities);
  if (prediction.fills) {
    return prediction.fills.map((fills) => el("div", {}, fills.map((fill) => bar(fill.token, fill.score, percent(fill.score)))));
  }
  return el("pre", {}, JSON.stringify(prediction, null, 2));
}

/** The text with its entities marked. Positions are code points. */
function markedText(text, entities) {
  const points = [...text];
  const parts = [];
  let position = 0;
  for (const entity of [...entities].sort((a, b) => a.start - b.start)) {
    if (entity.start < position) continue;
    parts.push(points.slice(position, entity.start).join(""));
    parts.push(el("mark", { title: `${entity.label} ${percent(entity.score)}` }, points.slice(entity.start, entity.end).join(""), el("small", {}, entity.label)));
    position = entity.end;
  }
  parts.push(points.slice(position).join(""));
  return el("p", { class: "marked" }, parts);
}

function cosine(a, b) {
  let product = 0;
  let squaresOfA = 0;
  let squaresOfB = 0;
  for (let index = 0; index < a.length; index += 1) {
    product += a[index] * b[index];
    squaresOfA += a[index] * a[index];
    squaresOfB += b[index] * b[index];
  }
  return product / Math.sqrt(squaresOfA * squaresOfB || 1);
}

function similarityView(inputs, embeddings) {
  if (inputs.length === 1) {
    return el("p", { class: "muted" }, `An embedding of ${embeddings[0].length} numbers. Write several lines to compare them.`);
  }
  const level = (value) => (value >= 0.9 ? 4 : value >= 0.6 ? 3 : value >= 0.4 ? 2 : value >= 0.2 ? 1 : 0);
  const rows = embeddings.map((one, row) => el("tr", {}, el("th", { scope: "row", title: inputs[row] }, `${row + 1}. ${inputs[row]}`),
    embeddings.map((other, column) => {
      const value = cosine(one, other);
      return el("td", { class: `level-${level(value)}`, title: `${inputs[row]} / ${inputs[column]}` }, value.toFixed(2));
    })));
  const headings = inputs.map((input, index) => el("th", { scope: "col", title: input }, el("span", {}, String(index + 1))));
  return scrollable("Similarities", el("table", { class: "heat similarities" }, el("caption", { class: "visually-hidden" }, "Cosine similarity of the lines"),
    el("thead", {}, el("tr", {}, el("td"), headings)), el("tbody", {}, rows)));
}
