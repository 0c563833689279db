// The form of a new job.

import assert from "node:assert/strict";
import { test } from "node:test";
import { visit } from "./browser.mjs";
import { rows, startSite, status } from "./fixture.mjs";

const site = startSite();

test("a newcomer gets from a file to a compared adapter", async (t) => {
  const page = await site.pageFor(t);
  let clicks = 0;
  const click = async (selector) => {
    clicks += 1;
    await page.click(selector);
  };
  await page.goto(site.url);
  await click('.empty a:text-is("New job")');
  await page.setInputFiles("input[type=file]", site.file("questions.csv", rows("utterance,topic_of_it")));
  // The columns have names of their own: the server says so, and the columns are chosen.
  await page.waitForSelector(".notice.error");
  assert.match(await page.textContent(".notice.error"), /"utterance", "topic_of_it".*Request id/s);
  await page.getByLabel("text", { exact: true }).selectOption("utterance");
  await page.getByLabel("label", { exact: true }).selectOption("topic_of_it");
  await click('button:text-is("Check again")');
  await page.waitForSelector('h2:text-is("Settings")');
  assert.match(await page.textContent(".report"), /Rows24Examples24/);
  await page.waitForFunction(() => /About [\d.]+ s/.test(document.querySelector(".beside p").textContent));
  await page.waitForSelector('option:text-is("Automatic (sequence classification)")', { state: "attached" });
  await page.getByLabel("Name").fill("questions");
  await page.getByLabel("Name").press("Tab");
  await page.waitForFunction(() => document.querySelector("pre").textContent.includes('"name":"questions"'));
  await click('button:text-is("Start training")');
  await page.waitForSelector(".chart canvas");
  await status(page, "succeeded");
  await click('a:text-is("Try it")');
  await page.getByLabel("Input").fill("where is my card");
  await click('button:text-is("Run")');
  await page.waitForSelector(".outputs .bar");
  assert.equal(await page.locator(".outputs .card").count(), 2);
  assert.match(await page.textContent(".outputs"), /An embedding of \d+ numbers/);
  t.diagnostic(`${clicks} clicks, a file, two columns, a name and a text`);
  await page.reload();
  await page.waitForSelector(".outputs .bar");
});

test("a wrong setting is shown at its field with the request's id", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("wrong.csv", rows("text,label", 20));
  await visit(page, site.url, `new?dataset=${dataset.id}&name=Bad%20Name`);
  const name = page.getByLabel("Name");
  await page.waitForSelector('[aria-invalid="true"]');
  assert.match(await page.textContent(`#${(await name.getAttribute("aria-describedby")).split(" ").pop()}`), /is not a name/);
  assert.match(await page.textContent(".notice.error"), /Request id/);
  assert.ok(await page.isDisabled('button:text-is("Start training")'));
});

test("a file that was corrected can be chosen again", async (t) => {
  const page = await site.pageFor(t);
  await visit(page, site.url, "new");
  const path = site.file("corrected.csv", "text,label\nonly one row\n");
  await page.setInputFiles("input[type=file]", path);
  await page.waitForSelector(".notice.error");
  // A browser sends no change for a file that the control has already.
  assert.equal(await page.evaluate(() => document.querySelector("input[type=file]").files.length), 0);
  site.file("corrected.csv", rows("text,label"));
  await page.setInputFiles("input[type=file]", path);
  await page.waitForSelector('h2:text-is("Settings")');
});

test("an answer of the server keeps the text that is typed meanwhile", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("typed.csv", rows("text,label"));
  await visit(page, site.url, `new?dataset=${dataset.id}&h.epochs=2`);
  await page.waitForSelector('button:text-is("Start training"):enabled');
  await page.route("**/jobs?validate_only=true", async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    await route.continue();
  });
  await page.getByLabel("Name").fill("typed");
  const answered = page.waitForResponse((response) => response.url().endsWith("validate_only=true"));
  const batch = page.getByLabel("batch size");
  await batch.focus();
  await page.keyboard.type("1");
  await answered;
  await page.waitForFunction(() => document.querySelector("pre").textContent.includes('"name":"typed"'));
  await page.keyboard.type("6");
  assert.equal(await batch.inputValue(), "16");
  assert.equal(await page.evaluate(() => document.activeElement.id), "set-h.batch_size");
  await page.keyboard.press("Tab");
  await page.waitForFunction(() => document.querySelector("pre").textContent.includes('"batch_size":16'));
});

test("settings of the address have their type and a field, after a reload too", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("reloaded.csv", rows("text,label"));
  const request = async (settings) => {
    await visit(page, site.url, `new?dataset=${dataset.id}&${settings}`);
    await page.waitForSelector('button:text-is("Start training"):enabled');
    const [sent] = await Promise.all([
      page.waitForRequest((one) => one.method() === "POST" && one.url().endsWith("/jobs")), page.click('button:text-is("Start training")'),
    ]);
    return sent.postDataJSON().method;
  };
  // The type that the settings get is the default of this base.
  const { spec } = await site.postJson("jobs?validate_only=true", { dataset_id: dataset.id });
  assert.equal(spec.method.type, "lora");
  assert.deepEqual(await request("m.rank=16&m.target_modules=query,%20value"), { type: "lora", rank: 16, target_modules: ["query", "value"] });
  assert.deepEqual(await request("m.target_modules=all-linear"), { type: "lora", target_modules: "all-linear" });
  await visit(page, site.url, `new?dataset=${dataset.id}&m.rank=0`);
  await page.waitForSelector('[id="set-m.rank"][aria-invalid="true"]');
  await visit(page, site.url, `new?dataset=${dataset.id}&m.rank=4&h.unknown=1`);
  await page.waitForSelector('[id="set-h.unknown"][aria-invalid="true"]');
  await page.waitForSelector('[id="set-m.rank"]');
  assert.ok(await page.isDisabled('button:text-is("Start training")'));
});

test("a server that cannot be reached is not a wrong setting", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("unreachable.csv", rows("text,label"));
  await page.route("**/jobs?validate_only=true", (route) => route.fulfill({
    status: 503, contentType: "application/problem+json", body: JSON.stringify({ detail: "the server is busy", code: "busy", status: 503 }),
  }));
  await visit(page, site.url, `new?dataset=${dataset.id}&m.rank=4`);
  await page.waitForSelector('.notice.error:has-text("the server is busy")');
  assert.ok(await page.isEnabled('button:text-is("Start training")'));
  await page.unroute("**/jobs?validate_only=true");
  await page.click('button:text-is("Try again")');
  await page.waitForFunction(() => /Method: lora/.test(document.querySelector(".beside p").textContent));
  assert.ok(await page.isHidden('button:text-is("Try again")'));
  assert.equal(await page.inputValue('[id="set-m.rank"]'), "4");
});
