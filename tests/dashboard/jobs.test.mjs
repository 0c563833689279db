// The list of jobs and the view of one job.

import assert from "node:assert/strict";
import { test } from "node:test";
import { visit } from "./browser.mjs";
import { rows, startSite, status } from "./fixture.mjs";
import { trainAdapter, waitFor } from "./server.mjs";

const site = startSite();

test("a running job is watched, reloaded, paused, resumed and cancelled", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("long.csv", rows("text,label"));
  await visit(page, site.url, `new?dataset=${dataset.id}&name=long&method=lora&h.epochs=100000`);
  await page.waitForFunction(() => document.querySelector("pre")?.textContent.includes('"epochs":100000'));
  await page.click('button:text-is("Start training")');
  await page.waitForSelector(".chart canvas");
  const step = () => page.textContent(".job-progress-text");
  const first = await step();
  await page.waitForFunction((text) => document.querySelector(".job-progress-text").textContent !== text, first);
  await page.reload();
  await page.waitForSelector(".chart canvas");
  const other = await site.pageFor(t);
  await visit(other, site.url, "jobs");
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

test("a cell of the confusion matrix leads to its examples, after a reload too", async (t) => {
  const page = await site.pageFor(t);
  const unlearnable = Array.from({ length: 60 }, (_, index) => `the same words ${index},${["card", "pin"][Math.floor(index / 3) % 2]}`);
  const job = { name: "confused", method: { type: "head" }, hyperparameters: { epochs: 1 } };
  const trained = await trainAdapter(site.url, job, "confused.csv", `text,label\n${unlearnable.join("\n")}\n`);
  await visit(page, site.url, `jobs/${trained.id}`);
  const matrix = page.locator('[aria-label="Confusion matrix"].card');
  await matrix.locator(".heat td button").first().click();
  await matrix.locator(".example").first().waitFor();
  const cell = trained.metrics.validation.example_lines.find((one) => page.url().includes(`label=${one.label}&predicted=${one.predicted}`));
  assert.equal(await matrix.locator("tbody .number").count(), cell.lines.length);
  assert.match(await matrix.locator(".scroll.tall").textContent(), /the same words \d+/);
  await page.reload();
  await matrix.locator(".example").first().waitFor();
  await page.waitForSelector(".reliability circle");
  await visit(page, site.url, `datasets/${trained.dataset_id}`);
  const examples = page.locator('[aria-label="Examples"].card');
  await examples.locator("tbody tr:nth-child(20)").waitFor();
  await examples.getByRole("button", { name: "More" }).click();
  await examples.locator("tbody tr:nth-child(40)").waitFor();
});

test("a clone of a comparison of methods, and of a job whose adapter is deleted, is the same job", async (t) => {
  const page = await site.pageFor(t);
  const candidates = [{ type: "head" }, { type: "bias", hyperparameters: { learning_rate: 0.001 } }];
  const raced = await trainAdapter(site.url, { name: "raced", method: { type: "auto", candidates }, hyperparameters: { epochs: 2 } }, "raced.csv", rows("text,label", 60));
  await cloneOf(page, raced.id);
  await page.waitForSelector('button:text-is("Start training"):enabled');
  await page.getByLabel("Name").waitFor();
  const request = await startedRequest(page);
  assert.deepEqual(request.method.candidates.map((one) => [one.type, Object.keys(one.hyperparameters).includes("epochs")]), [["head", false], ["bias", false]]);
  assert.equal(request.hyperparameters.epochs, 2);
  await status(page, "succeeded");

  const first = await trainAdapter(site.url, { name: "source", method: { type: "lora", rank: 3 }, hyperparameters: { epochs: 1 } }, "source.csv", rows("text,label"));
  const further = await trainAdapter(site.url, { name: "further", from_adapter: first.adapter_id, hyperparameters: { epochs: 1 } }, "source.csv", rows("text,label"));
  await site.api(`adapters/${first.adapter_id}`, { method: "DELETE" });
  await cloneOf(page, further.id);
  assert.match(page.url(), /method=lora.*m\.rank=3/);
  assert.doesNotMatch(page.url(), /from=/);
});

test("a job whose adapter is deleted says so", async (t) => {
  const page = await site.pageFor(t);
  const trained = await trainAdapter(site.url, { name: "gone", method: { type: "head" } }, "gone.csv", rows("text,label"));
  await visit(page, site.url, `jobs/${trained.id}`);
  await page.waitForSelector('a:text-is("Try it")');
  await page.waitForSelector('[aria-label="Events"] time[datetime]');
  await site.api(`adapters/${trained.adapter_id}`, { method: "DELETE" });
  await page.reload();
  await page.waitForSelector('.tile:has-text("Adapter") dd:text-is("deleted")');
  assert.equal(await page.locator('a:text-is("Try it"), a:text-is("Train further")').count(), 0);
});

test("a list that fails is reported beside the job, and a deleted job once", async (t) => {
  const page = await site.pageFor(t);
  const first = await trainAdapter(site.url, { name: "origin", method: { type: "lora" }, hyperparameters: { epochs: 1 } }, "origin.csv", rows("text,label"));
  const further = await trainAdapter(site.url, { name: "derived", from_adapter: first.adapter_id, hyperparameters: { epochs: 1 } }, "origin.csv", rows("text,label"));
  await page.route("**/adapters?*", (route) => route.fulfill({
    status: 503, contentType: "application/problem+json", body: JSON.stringify({ detail: "the server is busy", code: "busy", status: 503 }),
  }));
  await visit(page, site.url, `jobs/${further.id}`);
  await page.waitForSelector('.notice.error:has-text("the server is busy")');
  await page.waitForSelector('[aria-label="Confusion matrix"]');
  assert.equal(await page.locator('a:text-is("Clone")').count(), 0);
  let requests = 0;
  await page.route("**/events*", (route) => {
    requests += 1;
    return route.fulfill({ status: 404, contentType: "application/problem+json", body: JSON.stringify({ detail: "no such job", code: "job_not_found", status: 404 }) });
  });
  await page.reload();
  await page.waitForSelector('.notice.error:has-text("no such job")');
  await page.waitForTimeout(2500);
  assert.equal(requests, 1);
});

test("a view that was left does not change the address", async (t) => {
  const page = await site.pageFor(t);
  const trained = [];
  for (const name of ["left", "compared"]) trained.push(await trainAdapter(site.url, { name, method: { type: "head" } }, "left.csv", rows("text,label")));
  let answer;
  await page.route(`**/jobs/${trained[1].id}/events*`, async (route) => {
    await new Promise((resolve) => (answer = resolve));
    await route.continue();
  });
  await visit(page, site.url, `jobs/${trained[0].id}`);
  await page.waitForSelector(`option[value="${trained[1].id}"]`, { state: "attached" });
  await page.getByLabel("Compare with").selectOption(trained[1].id);
  await waitFor(() => answer);
  await page.click('nav a:text-is("System")');
  answer();
  await page.waitForSelector('[aria-label="Base model"]');
  await page.waitForTimeout(300);
  assert.match(page.url(), /#\/system$/);
});

test("one job that cannot be cancelled does not keep the others from it", async (t) => {
  const page = await site.pageFor(t);
  const dataset = await site.dataset("cancel.csv", rows("text,label"));
  const job = (name) => site.postJson("jobs", { dataset_id: dataset.id, name, method: { type: "lora" }, hyperparameters: { epochs: 100_000 } });
  const [first, second, third] = [await job("cancel-1"), await job("cancel-2"), await job("cancel-3")];
  await page.route(`**/jobs/${second.id}/cancel`, (route) => route.fulfill({
    status: 409, contentType: "application/problem+json", body: JSON.stringify({ detail: "the job is finished", code: "job_finished", status: 409 }),
  }));
  await visit(page, site.url, "jobs");
  for (const name of ["cancel-1", "cancel-2", "cancel-3"]) await page.getByLabel(`Select ${name}`, { exact: true }).check();
  await page.click('button:text-is("Cancel 3 selected")');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Keep");
  await page.click("dialog button[type=submit]");
  await page.waitForSelector('.notice.error:has-text("1 of 3 jobs was not cancelled.")');
  assert.match(await page.textContent(".notice.error"), /cancel-2: the job is finished/);
  for (const { id } of [first, third]) await waitFor(async () => (await site.api(`jobs/${id}`)).status === "cancelled");
  assert.equal(await page.locator("tbody input:checked").count(), 0);
  await site.api(`jobs/${second.id}/cancel`, { method: "POST" });
  // The filter keeps the head of the page and the focus.
  const filter = page.getByLabel("Status");
  await filter.focus();
  await filter.selectOption("succeeded");
  await page.waitForFunction(() => [...document.querySelectorAll("tbody .badge")].every((badge) => badge.textContent === "succeeded"));
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Status");
});

async function cloneOf(page, id) {
  await visit(page, site.url, `jobs/${id}`);
  await page.click('a:text-is("Clone")');
  await page.waitForSelector('h1:text-is("New job")');
}

/** Starts the job of the form and returns the request. */
async function startedRequest(page) {
  const [request] = await Promise.all([
    page.waitForRequest((one) => one.method() === "POST" && one.url().endsWith("/jobs")), page.click('button:text-is("Start training")'),
  ]);
  return request.postDataJSON();
}
