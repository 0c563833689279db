// Vercel's AI SDK with its provider for OpenAI-compatible servers.

import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateText, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "espalier",
  baseURL: `${process.env.ESPALIER_URL}/v1`,
  supportsStructuredOutputs: true,
});
const name = process.env.ESPALIER_MODEL;
const asked = { model: provider(name), prompt: "What is the weather in Paris?", maxOutputTokens: 48, temperature: 0 };
const getWeather = tool({
  description: "Weather of a city",
  inputSchema: z.object({ unit: z.enum(["celsius", "fahrenheit"]) }),
  execute: async ({ unit }) => `18 degrees ${unit}`,
});

async function chat() {
  return (await generateText(asked)).text;
}

async function stream() {
  let text = "";
  for await (const piece of streamText(asked).textStream) text += piece;
  assert.notEqual(text, "");
  return text;
}

async function structured() {
  const schema = z.object({ continent: z.enum(["Africa", "Asia", "Europe"]) });
  return (await generateText({ ...asked, output: Output.object({ schema }) })).output;
}

async function tools() {
  const options = { ...asked, tools: { getWeather }, toolChoice: "required" };
  const whole = await generateText(options);
  assert.equal(whole.toolResults.length, 1);
  const streamed = await streamText(options).toolResults;
  return [whole.toolResults[0].output, streamed[0].output];
}

async function embeddings() {
  const answer = await embedMany({ model: provider.embeddingModel(name), values: ["where is my card?", "how do I pay?"] });
  return answer.embeddings.map((embedding) => embedding.length);
}

async function errors() {
  await assert.rejects(generateText({ ...asked, model: provider("nobody"), maxRetries: 0 }), (error) => APICallError.isInstance(error) && error.statusCode === 404);
  return "APICallError 404";
}

// More requests than the server queues: it answers 503 with Retry-After, and the SDK sends them again.
async function retry() {
  return (await Promise.all(Array.from({ length: 6 }, () => generateText({ ...asked, maxRetries: 20 })))).length;
}

for (const feature of [chat, stream, structured, tools, embeddings, errors, retry]) {
  console.log(`${feature.name}: ${JSON.stringify(await feature())}`);
}
