// OpenAI's client for Node: only baseURL differs from a script for OpenAI's API.

import assert from "node:assert";
import OpenAI, { NotFoundError, toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const model = process.env.ESPALIER_MODEL;
const client = new OpenAI({ baseURL: `${process.env.ESPALIER_URL}/v1`, apiKey: "none", maxRetries: 20 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const asked = { model, messages, max_tokens: 64, temperature: 0 };
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather of a city",
    parameters: { type: "object", properties: { unit: { enum: ["celsius", "fahrenheit"] } }, required: ["unit"], additionalProperties: false },
  },
};

async function chat() {
  return (await client.chat.completions.create({ ...asked, max_tokens: 16 })).choices[0].message.content;
}

async function stream() {
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, max_tokens: 16, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  return text;
}

async function structured() {
  const place = z.object({ continent: z.enum(["Africa", "Asia", "Europe"]) });
  const answer = await client.chat.completions.parse({ ...asked, response_format: zodResponseFormat(place, "place") });
  return answer.choices[0].message.parsed;
}

async function tools() {
  const called = (await client.chat.completions.create({ ...asked, tools: [weather], tool_choice: "required" })).choices[0];
  assert.equal(called.finish_reason, "tool_calls");
  // The same call, streamed.
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, tools: [weather], tool_choice: "required", stream: true })) {
    streamed += chunk.choices[0]?.delta.tool_calls?.[0]?.function?.arguments ?? "";
  }
  assert.deepEqual(JSON.parse(streamed), JSON.parse(called.message.tool_calls[0].function.arguments));
  return streamed;
}

async function embeddings() {
  const answer = await client.embeddings.create({ model, input: ["where is my card?", "how do I pay?"] });
  return answer.data.map((row) => row.embedding.length);
}

async function upload() {
  const rows = [["red", "apple"], ["green", "pear"], ["blue", "plum"]].map(([color, fruit]) =>
    JSON.stringify({ messages: [{ role: "user", content: `fruit ${color}` }, { role: "assistant", content: fruit }] }),
  );
  return client.files.create({ file: await toFile(Buffer.from(`${rows.join("\n")}\n`.repeat(8)), "fruit.jsonl"), purpose: "fine-tune" });
}

async function files() {
  const file = await upload();
  assert.equal((await client.files.retrieve(file.id)).bytes, file.bytes);
  return file.filename;
}

async function fineTuning() {
  let job = await client.fineTuning.jobs.create({ model, training_file: (await upload()).id, hyperparameters: { n_epochs: 1 } });
  while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    job = await client.fineTuning.jobs.retrieve(job.id);
  }
  const answer = await client.chat.completions.create({ ...asked, model: job.fine_tuned_model, max_tokens: 8 });
  return [job.status, answer.choices[0].finish_reason];
}

async function errors() {
  await assert.rejects(client.chat.completions.create({ ...asked, model: "nobody" }), NotFoundError);
  return "NotFoundError";
}

// More requests than the server queues: it answers 503 with Retry-After, and the client sends them again.
async function retry() {
  return (await Promise.all(Array.from({ length: 8 }, () => client.chat.completions.create({ ...asked, max_tokens: 32 })))).length;
}

const features = { chat, stream, structured, tools, embeddings, files, "fine-tuning": fineTuning, errors, retry };
for (const [name, feature] of Object.entries(features)) {
  console.log(`${name}: ${JSON.stringify(await feature())}`);
}
