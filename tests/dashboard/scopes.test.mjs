// Sessions of keys with few scopes, refused and limited calls, and adapters that other owners share.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessibilityFaults, visit } from "./browser.mjs";
import { rows, startKeyedSite } from "./fixture.mjs";
import { trainAdapter } from "./server.mjs";

const SCOPES = ["predict", "generate", "train", "adapters:read", "adapters:write", "metrics", "admin"];
/** Views that each scope adds to those of every key. */
const VIEWS = {
  predict: ["Playground"], generate: ["Playground"], train: ["Jobs", "New job", "Datasets"], "adapters:read": ["Adapters"], "adapters:write": ["Adapters"],
  metrics: [], admin: ["Access"],
};
const site = startKeyedSite();

test("a session with one scope has the views of that scope, without a refused request", async (t) => {
  const owner = await site.createKey("acme", SCOPES);
  const trained = await trainAdapter(site.url, { name: "intents", method: { type: "head" } }, "intents.csv", rows("text,label"), owner);
  const details = { train: [`jobs/${trained.id}`, `new?dataset=${trained.dataset_id}`, `datasets/${trained.dataset_id}`], "adapters:read": ["adapters/intents"] };
  for (const scope of SCOPES) {
    const page = await site.signedInPage(t, await site.createKey("acme", [scope]));
    const refused = [];
    page.on("console", (message) => message.type() === "error" && refused.push(message.text()));
    page.on("response", (response) => response.status() >= 400 && refused.push(`${response.status()} ${response.url()}`));
    await page.goto(site.url);
    await page.waitForSelector("main h1");
    const titles = await page.locator("#navigation a").allTextContents();
    assert.deepEqual(titles.filter((title) => !["Usage", "System"].includes(title)), VIEWS[scope], scope);
    assert.deepEqual(titles.slice(-1), ["System"]);
    assert.equal(await page.textContent("#owner"), "Owner acme");
    assert.equal(await page.textContent("main h1"), titles[0]);
    const offered = await page.locator("#navigation a").evaluateAll((links) => links.map((link) => link.hash.slice(2)));
    for (const view of [...offered, ...(details[scope] ?? [])]) {
      await visit(page, site.url, view);
      await page.waitForLoadState("networkidle");
    }
    assert.deepEqual(refused, [], scope);
  }
});

test("a view without its scope names the scope", async (t) => {
  const page = await site.signedInPage(t, await site.createKey("acme", ["predict"]));
  await visit(page, site.url, "jobs");
  assert.deepEqual(await accessibilityFaults(page), []);
  assert.match(await page.textContent("main .notice"), /“Jobs” needs a key with the scope train\. .*Your key has: predict\./);
  await visit(page, site.url, "system");
  assert.match(await page.textContent("main .notice:not([hidden])"), /scope metrics/);
  await page.waitForSelector('[aria-label="Base model"]');
});

test("a key for predictions tries an adapter, and a limit says when to go on", async (t) => {
  const owner = await site.createKey("limited", SCOPES);
  await trainAdapter(site.url, { name: "tried", method: { type: "head" } }, "tried.csv", rows("text,label"), owner);
  const page = await site.signedInPage(t, await site.createKey("limited", ["predict"], { limits: { requests_per_minute: 1 } }));
  await visit(page, site.url, "playground");
  await page.locator(".chip", { hasText: "base model" }).locator("input").uncheck();
  await page.getByLabel("Input").fill("where is my card");
  await page.click('button:text-is("Run")');
  await page.waitForSelector(".outputs .bar");
  await page.click('button:text-is("Run")');
  const notice = page.locator(".outputs .notice.error");
  await notice.waitFor();
  assert.match(await notice.textContent(), /1 requests per minute.*Try again in \d+(\.\d)? s\./s);
});

test("actions that a key may not use are not offered", async (t) => {
  const owner = await site.createKey("readers", SCOPES);
  await trainAdapter(site.url, { name: "read", method: { type: "head" } }, "read.csv", rows("text,label"), owner);
  const page = await site.signedInPage(t, await site.createKey("readers", ["adapters:read"]));
  await visit(page, site.url, "adapters");
  assert.equal(await page.locator("input[type=file], a:text-is(\"Try\")").count(), 0);
  await page.click('a:text-is("read")');
  await page.waitForSelector('[aria-label="Lineage"] code');
  assert.equal(await page.locator("main button, main form").count(), 0);
  assert.match(await page.textContent('[aria-label="Shares"]'), /Shared with nobody/);
});

test("another owner uses a shared adapter and cannot change it", async (t) => {
  const owner = await site.createKey("sharer", SCOPES);
  const first = await trainAdapter(site.url, { name: "topics", method: { type: "lora" }, hyperparameters: { epochs: 1 } }, "topics.csv", rows("text,label"), owner);
  const job = { name: "topics", from_adapter: first.adapter_id, hyperparameters: { epochs: 1 } };
  await trainAdapter(site.url, job, "topics.csv", rows("text,label"), owner);
  const page = await site.signedInPage(t, owner);
  await visit(page, site.url, "adapters/topics");
  const lineage = page.locator('[aria-label="Lineage"]');
  await lineage.getByText("Trained from").first().waitFor();
  assert.equal(await lineage.locator("a", { hasText: "topics.csv" }).count(), 2);
  assert.match(await lineage.textContent(), /key:[0-9a-f-]{36}.*sha256:[0-9a-f]{64}/s);
  const shares = page.locator('[aria-label="Shares"]');
  await shares.getByLabel("Owners", { exact: true }).fill("globex\nwith spaces");
  await shares.getByRole("button").click();
  await shares.locator(".field .error").waitFor();
  await shares.getByLabel("Owners", { exact: true }).fill("borrower");
  await shares.getByRole("button").click();
  await shares.getByText("Shared with borrower").waitFor();

  const borrower = await site.createKey("borrower", SCOPES);
  const other = await site.signedInPage(t, borrower);
  await visit(other, site.url, "adapters");
  await other.click('a:text-is("sharer/topics")');
  await other.waitForSelector('h1:text-is("sharer/topics")');
  await other.waitForSelector('[aria-label="Lineage"] code');
  assert.equal(await other.locator("main button, main form").count(), 0);
  assert.ok(!(await other.textContent("main")).includes("topics.csv"));
  assert.deepEqual(await accessibilityFaults(other), []);
  await other.click('a:text-is("Compare in the playground")');
  await other.getByLabel("Input").fill("where is my card");
  const [request] = await Promise.all([
    other.waitForRequest((one) => one.method() === "POST" && one.url().includes("adapter=")), other.click('button:text-is("Run")'),
  ]);
  assert.equal(new URL(request.url()).searchParams.get("adapter"), "sharer/topics");
  await other.waitForSelector(".outputs .bar");

  await shares.getByLabel("Owners", { exact: true }).fill("");
  await shares.getByRole("button").click();
  await shares.getByText("Shared with nobody").waitFor();
  await visit(other, site.url, "adapters");
  assert.equal(await other.locator('a:text-is("sharer/topics")').count(), 0);
});
