// Conversations in the playground, with a base that generates text.

import assert from "node:assert/strict";
import { test } from "node:test";
import { visit } from "./browser.mjs";
import { rows, startSite } from "./fixture.mjs";
import { trainAdapter } from "./server.mjs";

const site = startSite("--model", "tests/fixtures/decoders/qwen2");

test("a conversation goes on, survives a reload and is forgotten", async (t) => {
  const page = await site.pageFor(t);
  const sent = sentMessages(page);
  await visit(page, site.url, "playground?model=base&max_tokens=5");
  for (const message of ["hello", "and again"]) {
    await page.getByLabel("Message").fill(message);
    await page.click('button:text-is("Send")');
    await page.waitForSelector(`.outputs .card:has(.bubble.user:text-is("${message}")) details`);
  }
  assert.deepEqual(sent.map((messages) => messages.map((message) => message.role)), [["user"], ["user", "assistant", "user"]]);
  await page.reload();
  await page.waitForSelector('.bubble.user:text-is("and again")');
  assert.equal(await page.locator(".outputs .bubble").count(), 4);
  await page.click('button:text-is("New conversation")');
  assert.equal(await page.locator(".outputs .bubble").count(), 0);
});

test("a stopped answer is a turn, and the next message follows it", async (t) => {
  const page = await site.pageFor(t);
  await page.addInitScript(answerSlowly);
  await visit(page, site.url, "playground?model=base");
  const message = page.getByLabel("Message");
  const send = async (text) => {
    await message.fill(text);
    await message.press("Control+Enter");
    await page.waitForFunction((last) => [...document.querySelectorAll(".bubble.user")].at(-1)?.textContent === last, text);
    await page.waitForFunction(() => [...document.querySelectorAll(".bubble")].at(-1).textContent.length > 3);
  };
  await send("first");
  await send("second");
  await page.click('button:text-is("Stop")');
  await page.waitForSelector('button:text-is("New conversation")');
  assert.equal(await message.inputValue(), "");
  await send("third");
  const sent = await page.evaluate(() => window.sentMessages);
  assert.deepEqual(sent.map((messages) => messages.length), [1, 3, 5]);
  const contents = sent.at(-1).map((one) => one.content);
  assert.deepEqual([contents[0], contents[2], contents[4]], ["first", "second", "third"]);
  assert.ok(contents[1].length > 0 && contents[3].length > 0);
});

test("an empty answer is stored without text, and an error keeps the conversation", async (t) => {
  const page = await site.pageFor(t);
  const sent = sentMessages(page);
  const answers = [
    { status: 200, contentType: "text/event-stream", body: "data: [DONE]\n\n" },
    { status: 503, contentType: "application/json", body: JSON.stringify({ error: { message: "the server is busy", code: "busy" } }) },
  ];
  await page.route("**/v1/chat/completions", (route) => (answers.length ? route.fulfill(answers.shift()) : route.continue()));
  await visit(page, site.url, "playground?model=base&max_tokens=3");
  const message = page.getByLabel("Message");
  await message.fill("hello");
  await message.press("Control+Enter");
  await page.waitForSelector('.outputs p:text-is("(empty answer)")');
  await message.fill("again");
  await message.press("Control+Enter");
  await page.waitForSelector('.outputs .notice.error:has-text("the server is busy")');
  assert.equal(await page.locator('.outputs .bubble.user:text-is("hello")').count(), 1);
  assert.equal(await message.inputValue(), "again");
  await message.press("Control+Enter");
  await page.waitForSelector('.outputs .bubble.user:text-is("again")');
  assert.deepEqual(sent.at(-1).map((one) => one.content), ["hello", "", "again"]);
});

test("a generative and a classifying model answer side by side", async (t) => {
  const page = await site.pageFor(t);
  const trained = await trainAdapter(site.url, { name: "beside", method: { type: "head" }, hyperparameters: { epochs: 1 } }, "beside.csv", rows("text,label"));
  await visit(page, site.url, `playground?model=base&model=${trained.adapter_id}&max_tokens=3`);
  await page.getByLabel("Message").fill("where is my card");
  await page.click('button:text-is("Send")');
  await page.waitForSelector(".outputs .bar");
  await page.waitForSelector('button:text-is("New conversation")');
  await page.locator(".chip", { hasText: "base model" }).locator("input").uncheck();
  assert.equal(await page.locator(".outputs .card").count(), 1);
  assert.ok((await page.locator(".outputs .bar").count()) > 0);
});

/** Messages of each request that the page sends. */
function sentMessages(page) {
  const sent = [];
  page.on("request", (request) => request.url().endsWith("/v1/chat/completions") && sent.push(request.postDataJSON().messages));
  return sent;
}

/** Runs in the page: a server that sends words until it is stopped. */
function answerSlowly() {
  const { fetch } = window;
  window.sentMessages = [];
  window.fetch = async (url, options) => {
    if (!String(url).endsWith("/v1/chat/completions")) return fetch(url, options);
    window.sentMessages.push(JSON.parse(options.body).messages);
    const chunk = new TextEncoder().encode('data: {"choices":[{"delta":{"content":"word "}}]}\n\n');
    const stream = new ReadableStream({
      start(controller) {
        const timer = setInterval(() => controller.enqueue(chunk), 50);
        options.signal.addEventListener("abort", () => {
          clearInterval(timer);
          controller.error(options.signal.reason);
        });
      },
    });
    return new Response(stream);
  };
}
