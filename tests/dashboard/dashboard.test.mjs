// The dashboard in a browser, as its users go through it. scripts/dashboard.sh runs it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessibilityFaults, launch, openPage, visit } from "./browser.mjs";
import { startServer, trainAdapter } from "./server.mjs";

const KEY = "a-key-for-the-dashboard";
const folder = mkdtempSync(join(tmpdir(), "espalier-files-"));
const MARKUP = ['<img src=x onerror="alert(1)">', '"><script>alert(2)</script>', "javascript:alert(3)", "<svg/onload=alert(4)>"];

function rows(header, count = 24) {
  const lines = Array.from({ length: count }, (_, index) => (index % 2 ? `my card is late ${index},card` : `I lost my pin ${index},pin`));
  return `${header}\n${lines.join("\n")}\n`;
}

function file(name, content) {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

let browser;
let server;
before(async () => {
  [browser, server] = await Promise.all([launch(), startServer()]);
});
after(async () => {
  await browser.close();
  await server.stop();
});

/** Page whose faults fail the test at its end. */
async function pageFor(t, settings) {
  const page = await openPage(browser, server.url, settings);
  t.after(async () => {
    await page.context().close();
    assert.deepEqual(page.faults, []);
  });
  return page;
}

const status = (page, text) => page.waitForSelector(`.page-head .badge:text-is("${text}")`, { timeout: 60_000 });

test("a newcomer gets from a file to a compared adapter", async (t) => {
  const page = await pageFor(t);
  let clicks = 0;
  const click = async (selector) => {
    clicks += 1;
    await page.click(selector);
  };
  await page.goto(server.url);
  await click('.empty a:text-is("New job")');
  await page.setInputFiles("input[type=file]", file("questions.csv", rows("utterance,topic_of_it")));
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

test("a running job is watched, reloaded, paused, resumed and cancelled", async (t) => {
  const page = await pageFor(t);
  const form = new FormData();
  form.append("dataset", new Blob([rows("text,label")]), "long.csv");
  const dataset = await (await fetch(`${server.url}/datasets`, { method: "POST", body: form })).json();
  await visit(page, server.url, `new?dataset=${dataset.id}&name=long&method=lora&h.epochs=100000`);
  await page.waitForFunction(() => document.querySelector("pre")?.textContent.includes('"epochs":100000'));
  await page.click('button:text-is("Start training")');
  await page.waitForSelector(".chart canvas");
  const step = () => page.textContent(".job-progress-text");
  const first = await step();
  await page.waitForFunction((text) => document.querySelector(".job-progress-text").textContent !== text, first);
  await page.reload();
  await page.waitForSelector(".chart canvas");
  const other = await pageFor(t);
  await visit(other, server.url, "jobs");
  await other.waitForSelector(".sparkline polyline[points]", { state: "attached" });
  await page.click('button:text-is("Pause")');
  await status(page, "paused");
  await page.click('button:text-is("Resume")');
  await status(page, "running");
  await page.getByLabel("Metric").selectOption("accuracy");
  await page.getByLabel("Logarithmic").check();
  assert.match(page.url(), /metric=accuracy.*log=1/);
  await page.click('button:text-is("Cancel")');
  await page.click('dialog button[type=submit]');
  await status(page, "cancelled");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click('button:text-is("CSV")')]);
  assert.match(download.suggestedFilename(), /\.csv$/);
  assert.match(await page.textContent('[aria-label="Configuration"]'), /100000 default \d+/);
  await page.click('a:text-is("Clone")');
  await page.waitForSelector('h1:text-is("New job")');
  assert.match(page.url(), /h\.epochs=100000/);
});

test("a wrong setting is shown at its field with the request's id", async (t) => {
  const page = await pageFor(t);
  const form = new FormData();
  form.append("dataset", new Blob([rows("text,label", 20)]), "wrong.csv");
  const dataset = await (await fetch(`${server.url}/datasets`, { method: "POST", body: form })).json();
  await visit(page, server.url, `new?dataset=${dataset.id}&name=Bad%20Name`);
  const name = page.getByLabel("Name");
  await page.waitForSelector('[aria-invalid="true"]');
  assert.match(await page.textContent(`#${(await name.getAttribute("aria-describedby")).split(" ").pop()}`), /is not a name/);
  assert.match(await page.textContent(".notice.error"), /Request id/);
  assert.ok(await page.isDisabled('button:text-is("Start training")'));
});

test("an adapter is downloaded, imported under another name and deleted", async (t) => {
  const page = await pageFor(t);
  await trainAdapter(server.url, { name: "moved", method: { type: "head" } }, "moved.csv", rows("text,label"));
  await visit(page, server.url, "adapters/moved");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click('a:text-is("PEFT")')]);
  const path = join(folder, "moved.zip");
  await download.saveAs(path);
  await visit(page, server.url, "adapters");
  await page.getByLabel("Name").fill("imported");
  await page.setInputFiles("input[type=file]", path);
  await page.waitForSelector('h1:text-is("imported")');
  assert.match(await page.textContent("table"), /From.*import/s);
  await page.click('button:text-is("Delete")');
  await page.click("dialog button[type=submit]");
  await page.waitForSelector('h1:text-is("Adapters")');
  assert.equal(await page.locator('a:text-is("imported")').count(), 0);
});

test("a cell of the confusion matrix leads to its examples, after a reload too", async (t) => {
  const page = await pageFor(t);
  const unlearnable = Array.from({ length: 60 }, (_, index) => `the same words ${index},${["card", "pin"][Math.floor(index / 3) % 2]}`);
  const job = { name: "confused", method: { type: "head" }, hyperparameters: { epochs: 1 } };
  const trained = await trainAdapter(server.url, job, "confused.csv", `text,label\n${unlearnable.join("\n")}\n`);
  await visit(page, server.url, `jobs/${trained.id}`);
  const matrix = page.locator('[aria-label="Confusion matrix"].card');
  await matrix.locator(".heat td button").first().click();
  await matrix.locator(".example").first().waitFor();
  const cell = trained.metrics.validation.example_lines.find((one) => page.url().includes(`label=${one.label}&predicted=${one.predicted}`));
  assert.equal(await matrix.locator("tbody .number").count(), cell.lines.length);
  assert.match(await matrix.locator(".scroll.tall").textContent(), /the same words \d+/);
  await page.reload();
  await matrix.locator(".example").first().waitFor();
  await page.waitForSelector(".reliability circle");
  await visit(page, server.url, `datasets/${trained.dataset_id}`);
  const examples = page.locator('[aria-label="Examples"].card');
  await examples.locator("tbody tr:nth-child(20)").waitFor();
  await examples.getByRole("button", { name: "More" }).click();
  await examples.locator("tbody tr:nth-child(40)").waitFor();
});

test("a name refers to an earlier version again", async (t) => {
  const page = await pageFor(t);
  const versions = [];
  for (const epochs of [1, 2]) {
    const job = { name: "twice", method: { type: "lora" }, hyperparameters: { epochs } };
    versions.push((await trainAdapter(server.url, job, "twice.csv", rows("text,label"))).adapter_id);
  }
  const current = async () => (await (await fetch(`${server.url}/adapters/twice`)).json()).id;
  assert.equal(await current(), versions[1]);
  await visit(page, server.url, "adapters/twice");
  await page.click('button:text-is("Activate")');
  await page.waitForSelector("tbody td:nth-child(3) .badge.succeeded");
  assert.equal(await current(), versions[0]);
});

test("a conversation goes on, survives a reload and is forgotten", async (t) => {
  const decoder = await startServer("--model", "tests/fixtures/decoders/qwen2");
  const page = await openPage(browser, decoder.url);
  t.after(async () => {
    await page.context().close();
    await decoder.stop();
    assert.deepEqual(page.faults, []);
  });
  const sent = [];
  page.on("request", (request) => request.url().endsWith("/v1/chat/completions") && sent.push(request.postDataJSON().messages.map((message) => message.role)));
  await visit(page, decoder.url, "playground?model=base&max_tokens=5");
  for (const message of ["hello", "and again"]) {
    await page.getByLabel("Message").fill(message);
    await page.click('button:text-is("Send")');
    await page.waitForSelector(`.outputs .card:has(.bubble.user:text-is("${message}")) details`);
  }
  assert.deepEqual(sent, [["user"], ["user", "assistant", "user"]]);
  await page.reload();
  await page.waitForSelector('.bubble.user:text-is("and again")');
  assert.equal(await page.locator(".outputs .bubble").count(), 4);
  await page.click('button:text-is("New conversation")');
  assert.equal(await page.locator(".outputs .bubble").count(), 0);
});

test("markup in texts, labels, file names and metadata stays text", async (t) => {
  const page = await pageFor(t);
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = Array.from({ length: 24 }, (_, index) => `${quoted(`${MARKUP[index % 4]} ${index}`)},${quoted(MARKUP[index % 2])}`);
  const job = { method: { type: "head" }, metadata: { "<b>key": MARKUP[0] } };
  const trained = await trainAdapter(server.url, job, `${MARKUP[3].replace("/", " ")}.csv`, `text,label\n${lines.join("\n")}\n`);
  const text = encodeURIComponent(MARKUP.join("\n"));
  const views = ["jobs", `jobs/${trained.id}`, "adapters", `adapters/${trained.adapter_id}`, "datasets", `datasets/${trained.dataset_id}`,
    `new?dataset=${trained.dataset_id}&name=${text}`, `playground?model=${trained.adapter_id}&text=${text}`, `${text}/${text}`];
  for (const view of views) {
    await visit(page, server.url, view);
    await page.waitForLoadState("networkidle");
    assert.equal(await page.locator("main script, main img, main iframe, main [onerror], main [onload]").count(), 0, view);
  }
  await visit(page, server.url, `jobs/${trained.id}`);
  await page.waitForSelector('[aria-label="Confusion matrix"]');
  assert.ok((await page.textContent("main")).includes(MARKUP[0]));
});

test("a job is started with the keyboard alone", async (t) => {
  const page = await pageFor(t);
  await page.goto(server.url);
  await page.waitForSelector("main h1");
  const focusOn = async (name) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      const text = await page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.placeholder);
      if (text === name) return;
    }
    assert.fail(`"${name}" is not reached by Tab`);
  };
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await focusOn("New job");
  await page.keyboard.press("Enter");
  await page.waitForSelector('h1:text-is("New job")');
  await focusOn("Or paste rows");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.insertText(rows("text,label"));
  await focusOn("Check the rows");
  await page.keyboard.press("Enter");
  await page.waitForSelector('h2:text-is("Settings")');
  await page.waitForSelector('button:text-is("Start training"):enabled');
  await focusOn("Start training");
  await page.keyboard.press("Enter");
  await status(page, "succeeded");
});

test("a server with keys asks for one and keeps a session", async (t) => {
  const locked = await startServer("--api-keys", KEY);
  const page = await openPage(browser, locked.url);
  t.after(async () => {
    await page.context().close();
    await locked.stop();
    assert.deepEqual(page.faults, []);
  });
  await page.goto(locked.url);
  const key = page.getByLabel("API key");
  await key.fill("a-key-that-is-wrong");
  await page.click('button:text-is("Sign in")');
  await page.waitForSelector("dialog .notice.error");
  await key.fill(KEY);
  await page.click('button:text-is("Sign in")');
  await page.waitForSelector('h1:text-is("Jobs")');
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.value.includes(KEY)], [true, "Strict", false]);
  assert.ok(!(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]))).includes(KEY));
  await page.reload();
  await page.waitForSelector('h1:text-is("Jobs")');
  assert.equal(await page.locator("dialog").count(), 0);
  await page.click('button:text-is("Sign out")');
  await page.waitForSelector("dialog");
});

test("every view is accessible, light and dark, on a phone and on a wide screen", async (t) => {
  const trained = await trainAdapter(server.url, { name: "shown", method: { type: "lora" }, hyperparameters: { epochs: 4 } }, "shown.csv", rows("text,label"));
  const views = ["jobs", `jobs/${trained.id}`, "new", `new?dataset=${trained.dataset_id}&h.epochs=2`, "adapters", "adapters/shown",
    `playground?model=base&model=${trained.adapter_id}&text=where%20is%20my%20card%0Amy%20pin`, "datasets", `datasets/${trained.dataset_id}`, "system"];
  const phone = { width: 390, height: 844 };
  const checkAll = async (settings) => {
    const page = await pageFor(t, settings);
    for (const view of views) {
      await visit(page, server.url, view);
      await page.waitForLoadState("networkidle");
      assert.deepEqual(await accessibilityFaults(page), [], `${view} ${JSON.stringify(settings)}`);
    }
  };
  await Promise.all([{ theme: "light" }, { theme: "dark" }, { theme: "light", ...phone }, { theme: "dark", ...phone }].map(checkAll));
});

test("10,000 jobs and 100,000 rows of metrics stay fast, and live updates take no memory", async (t) => {
  const large = await startServer();
  t.after(() => large.stop());
  await trainAdapter(large.url, { name: "copied", method: { type: "head" } }, "copied.csv", rows("text,label"));
  const id = execFileSync("python3", ["tests/dashboard/seed.py", large.database, "10000", "100000"], { encoding: "utf8" }).trim();
  const page = await openPage(browser, large.url);
  t.after(() => page.context().close());
  const firstPaint = () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  // From an event of the user until the next frame is drawn.
  const interaction = (selector, value) => page.evaluate(([selector, value]) => new Promise((resolve) => {
    const control = document.querySelector(selector);
    const start = performance.now();
    if (value == null) control.click();
    else {
      control.value = value;
      control.dispatchEvent(new Event("change"));
    }
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
  }), [selector, value]);

  await visit(page, large.url, "jobs");
  await page.waitForSelector("tbody tr:nth-child(50)");
  const list = { paint: await firstPaint(), filter: await interaction('select[aria-label="Status"]', "succeeded") };
  await page.waitForSelector("tbody tr:nth-child(50)");
  const heap = async () => {
    const session = await page.context().newCDPSession(page);
    await session.send("HeapProfiler.collectGarbage");
    return (await session.send("Runtime.getHeapUsage")).usedSize / 1e6;
  };
  await page.waitForTimeout(4000);
  const before = await heap();
  await page.waitForTimeout(15_000);
  const growth = (await heap()) - before;

  await visit(page, large.url, `jobs/${id}`);
  const paint = await firstPaint();
  // The stream has ended: all rows are there.
  await page.waitForResponse((response) => response.url().includes("/events") && response.status() === 204, { timeout: 60_000 });
  await page.waitForSelector(".chart canvas");
  await page.waitForTimeout(500);
  const job = { paint, log: await interaction(".chart-tools input[type=checkbox]"), smooth: await interaction(".chart-tools .field:nth-child(2) select", "0.85") };
  const rounded = (values) => Object.entries(values).map(([name, value]) => `${name} ${Math.round(value)} ms`).join(", ");
  t.diagnostic(`jobs: ${rounded(list)}; job: ${rounded(job)}; memory after 15 s of updates: ${growth.toFixed(1)} MB more`);
  // The limits of interactions leave room for a busy machine.
  assert.ok(list.paint < 1000 && paint < 1000, "first paint");
  assert.ok(list.filter < 300 && job.log < 500 && job.smooth < 500, "interaction");
  assert.ok(growth < 2, "memory");
  assert.deepEqual(page.faults, []);
});
