// Adapters: import, versions and deletion.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { visit } from "./browser.mjs";
import { rows, startSite } from "./fixture.mjs";
import { trainAdapter } from "./server.mjs";

const site = startSite();

test("an adapter is downloaded, imported under another name and deleted", async (t) => {
  const page = await site.pageFor(t);
  await trainAdapter(site.url, { name: "moved", method: { type: "head" } }, "moved.csv", rows("text,label"));
  await visit(page, site.url, "adapters/moved");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click('a:text-is("PEFT")')]);
  const path = join(site.folder, "moved.zip");
  await download.saveAs(path);
  await visit(page, site.url, "adapters");
  await page.getByLabel("Name").fill("imported");
  await page.setInputFiles("input[type=file]", path);
  await page.waitForSelector('h1:text-is("imported")');
  assert.match(await page.textContent("table"), /From.*import/s);
  await page.click('button:text-is("Delete")');
  await page.click("dialog button[type=submit]");
  await page.waitForSelector('h1:text-is("Adapters")');
  assert.equal(await page.locator('a:text-is("imported")').count(), 0);
});

test("an earlier version is activated", async (t) => {
  const page = await site.pageFor(t);
  const versions = [];
  for (const epochs of [1, 2]) {
    const job = { name: "twice", method: { type: "lora" }, hyperparameters: { epochs } };
    versions.push((await trainAdapter(site.url, job, "twice.csv", rows("text,label"))).adapter_id);
  }
  const current = async () => (await site.api("adapters/twice")).id;
  assert.equal(await current(), versions[1]);
  await visit(page, site.url, "adapters/twice");
  await page.click('button:text-is("Activate")');
  await page.waitForSelector("tbody td:nth-child(3) .badge.succeeded");
  assert.equal(await current(), versions[0]);
});
