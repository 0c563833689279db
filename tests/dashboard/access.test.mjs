// Keys, owners, usage and the audit log in the dashboard of an administrator.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { accessibilityFaults, visit } from "./browser.mjs";
import { startKeyedSite } from "./fixture.mjs";
import { keyHeaders, startServer, waitFor } from "./server.mjs";

const site = startKeyedSite("--access-refresh-interval", "200ms");

test("a key is created, shown once, rotated and revoked", async (t) => {
  const page = await site.signedInPage(t, site.key);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await visit(page, site.url, "access");
  await page.click('a:text-is("New key")');
  await page.getByLabel("Owner", { exact: true }).fill("Not A Name");
  await page.getByLabel("Name", { exact: true }).fill("<b>application</b>");
  await page.getByLabel("predict").check();
  await page.getByLabel("Adapters", { exact: true }).fill("support-*\nother\n");
  await page.getByLabel("Requests per minute").fill("600");
  await page.getByLabel("Expires").fill("2099-01-02T03:04");
  await page.click('button:text-is("Create the key")');
  await page.waitForSelector('.field:has-text("Owner") .error');
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-invalid")), "true");
  await page.getByLabel("Owner", { exact: true }).fill("acme");
  await page.click('button:text-is("Create the key")');
  const key = await page.getByLabel("API key").inputValue();
  assert.match(key, /^esp_.{43}$/);
  await page.click('button:text-is("Copy the key")');
  await page.waitForSelector('button:text-is("Copied")');
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);
  const current = await site.api("keys/current", {}, key);
  assert.deepEqual([current.owner, current.scopes, current.adapters, current.limits], ["acme", ["predict"], ["support-*", "other"], { requests_per_minute: 600 }]);
  assert.match(current.expires_at, /^2099-01-0/);

  await page.click('a:text-is("All keys")');
  const row = (status) => page.locator("tbody tr", { hasText: "acme" }).filter({ has: page.locator(`.badge:text-is("${status}")`) });
  await row("active").waitFor();
  assert.match(await row("active").textContent(), /<b>application<\/b>.*predict.*support-\*, other.*600 requests\/min/s);
  assert.ok(!(await page.content()).includes(key));

  await row("active").getByRole("button", { name: "Rotate" }).click();
  await page.getByLabel("The old key stays valid for").selectOption({ label: "1 hour" });
  await page.click("dialog button[type=submit]");
  const rotated = await page.getByLabel("API key").inputValue();
  assert.notEqual(rotated, key);
  assert.deepEqual([await status(key), await status(rotated)], [200, 200]);
  const old = await site.api("keys/current", {}, key);
  assert.ok(Math.abs(new Date(old.expires_at) - Date.now() - 3_600_000) < 60_000, old.expires_at);

  await row("active").nth(1).waitFor();
  await row("active").first().getByRole("button", { name: "Revoke" }).click();
  assert.match(await page.textContent("dialog"), /refused from then on/);
  await page.click("dialog button[type=submit]");
  await row("revoked").waitFor();
  assert.deepEqual([await status(key), await status(rotated)], [200, 401]);
  await page.getByLabel("status").selectOption("revoked");
  assert.equal(await page.locator("tbody tr").count(), await page.locator('tbody .badge:text-is("revoked")').count());
  assert.match(page.url(), /status=revoked/);
});

test("whoever revokes the key of the own session signs in again", async (t) => {
  const key = await site.createKey("keyholder", ["admin"]);
  const page = await site.signedInPage(t, key);
  await visit(page, site.url, "access?owner=keyholder");
  await page.getByRole("button", { name: "Revoke" }).click();
  assert.match(await page.textContent("dialog"), /your session ends/);
  await page.click("dialog button[type=submit]");
  await page.getByLabel("API key").fill(site.key);
  await page.click('button:text-is("Sign in")');
  await page.waitForSelector('#owner:text-is("Owner default")');
  await page.waitForSelector('tbody .badge:text-is("revoked")');
});

test("limits of an owner are set and removed", async (t) => {
  const page = await site.signedInPage(t, site.key);
  await visit(page, site.url, "access/owners");
  await page.getByLabel("Owner", { exact: true }).fill("initech");
  await page.click('button:text-is("Set limits")');
  await page.waitForSelector('h1:text-is("Limits of initech")');
  await page.getByLabel("Queued jobs").fill("7");
  await page.getByLabel("Bytes of datasets").fill("1048576");
  await page.click('button:text-is("Save the limits")');
  await page.waitForSelector('.saved:text-is("Saved")');
  assert.deepEqual((await site.api("owners/initech")).limits, { queued_jobs: 7, dataset_bytes: 1_048_576 });
  await page.getByLabel("Queued jobs").fill("");
  await page.getByLabel("Tokens per minute").fill("99999999999");
  await page.click('button:text-is("Save the limits")');
  await page.waitForSelector(".notice.error");
  await page.getByLabel("Tokens per minute").fill("");
  await page.click('button:text-is("Save the limits")');
  await page.waitForSelector('.saved:text-is("Saved")');
  assert.deepEqual((await site.api("owners/initech")).limits, { dataset_bytes: 1_048_576 });
  await page.click('a:text-is("All owners")');
  assert.match(await page.locator("tr", { hasText: "initech" }).textContent(), /1\.0 MiB of datasets/);
});

test("usage is shown by day, owner and adapter, and as CSV", async (t) => {
  for (const [owner, requests] of [["umbrella", 3], ["hooli", 1]]) {
    const key = await site.createKey(owner, ["predict"]);
    for (let count = 0; count < requests; count += 1) await site.postJson("predict", { inputs: ["where is my card"] }, key);
  }
  const counted = (owner) => async () => (await site.api(`usage?owner=${owner}`)).data[0];
  await waitFor(counted("umbrella"));
  await waitFor(counted("hooli"));
  const page = await site.signedInPage(t, site.key);
  await visit(page, site.url, "usage");
  await page.waitForSelector(".chart canvas");
  const today = new Date().toISOString().slice(0, 10);
  assert.deepEqual(await page.locator("main table.stacking tbody td:first-child").allTextContents(), [today]);
  await page.getByLabel("By", { exact: true }).selectOption("owner");
  const row = page.locator("main table.stacking tbody tr", { hasText: "umbrella" });
  await row.waitFor();
  assert.equal(await row.locator("td").nth(1).textContent(), "3");
  assert.match(await page.locator(".chart canvas").getAttribute("aria-label"), /umbrella, hooli|umbrella.*hooli/);
  await page.getByLabel("Owner", { exact: true }).selectOption("hooli");
  await page.waitForFunction(() => !document.querySelector("main table.stacking").textContent.includes("umbrella"));
  await page.getByLabel("By", { exact: true }).selectOption("adapter");
  await page.waitForSelector('main td:text-is("base model")');
  assert.match(page.url(), /by=adapter&owner=hooli/);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click('a:text-is("CSV")')]);
  const csv = readFileSync(await download.path(), "utf8");
  assert.ok(csv.includes("hooli") && !csv.includes("umbrella"), csv);
  await page.getByLabel("First day").fill("2020-01-01");
  await page.waitForSelector(".notice.error");
  await page.getByLabel("Last day").fill("2020-01-31");
  await page.waitForSelector('h2:text-is("No usage")');
  assert.equal(await page.locator(".notice.error").count(), 0);

  const own = await site.signedInPage(t, await site.createKey("umbrella", ["predict"]));
  await visit(own, site.url, "usage?by=owner");
  await own.waitForSelector(".chart canvas");
  assert.deepEqual(await own.locator("main table.stacking tbody td:first-child").allTextContents(), ["umbrella"]);
  assert.equal(await own.getByLabel("Owner", { exact: true }).count(), 0);
});

test("the audit log is filtered, paged and exported", async (t) => {
  const small = await startServer("--admin-keys", site.key, "--default-page-size", "2", "--max-page-size", "2");
  t.after(() => small.stop());
  const headers = { ...keyHeaders(site.key), "content-type": "application/json" };
  for (let count = 0; count < 3; count += 1) {
    await fetch(`${small.url}/keys`, { method: "POST", headers, body: JSON.stringify({ owner: "acme", name: `key ${count}`, scopes: ["predict"] }) });
  }
  await fetch(`${small.url}/owners/acme`, { method: "PUT", headers, body: "{}" });
  const page = await site.pageFor(t, { url: small.url });
  await page.request.post(`${small.url}/session`, { data: { key: site.key } });
  await visit(page, small.url, "access/audit");
  await page.getByLabel("Action").fill("create_key");
  await page.click('button:text-is("Filter")');
  await page.waitForURL(/action=create_key/);
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2 && !document.querySelector("main").textContent.includes("set_owner_limits"));
  const first = await page.locator("tbody tr").first().textContent();
  assert.match(first, /default.*setting:[0-9a-f]+.*create_key.*\/keys\/[0-9a-f-]{36}.*201.*127\.0\.0\.1/s);
  await page.click('a:text-is("Older entries")');
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click('a:text-is("CSV of this page")')]);
  const lines = readFileSync(await download.path(), "utf8").trim().split("\n");
  assert.equal(lines.length, 2, lines.join("\n"));
  await page.click('a:text-is("Newest entries")');
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 2);
  await visit(page, small.url, "access");
  assert.equal(await page.locator("tbody tr").count(), 3);
});

test("a server without keys says why none can be created", async (t) => {
  const open = await startServer();
  t.after(() => open.stop());
  const page = await site.pageFor(t, { url: open.url });
  await visit(page, open.url, "access");
  assert.match(await page.textContent("main .notice"), /no keys.*--admin-keys/s);
  assert.equal(await page.locator("#owner:visible").count(), 0);
});

test("the views of an administrator are accessible, light and dark, on a phone and on a wide screen", async (t) => {
  const longName = `an-owner-with-a-long-name-${"x".repeat(200)}`;
  const key = await site.createKey(longName, ["predict", "generate", "adapters:read"],
    { adapters: ["support-*", "acme/intents-of-customers"], limits: { requests_per_minute: 600, tokens_per_minute: 200_000 } });
  await site.postJson("predict", { inputs: ["where is my card"] }, key);
  await waitFor(async () => (await site.api("usage?owner=*")).data.length > 0);
  const views = ["access", "access/new", "access/owners", `access/owners/${longName}`, "access/audit", "usage?by=owner"];
  const phone = { width: 390, height: 844 };
  const checkAll = async (settings) => {
    const page = await site.signedInPage(t, site.key, settings);
    for (const view of views) {
      await visit(page, site.url, view);
      await page.waitForLoadState("networkidle");
      assert.deepEqual(await accessibilityFaults(page), [], `${view} ${JSON.stringify(settings)}`);
    }
    await visit(page, site.url, "access?owner=acme");
    await page.getByRole("button", { name: "Rotate" }).first().click();
    await page.click("dialog button[type=submit]");
    await page.getByLabel("API key").waitFor();
    assert.deepEqual(await accessibilityFaults(page), [], `a new key ${JSON.stringify(settings)}`);
  };
  for (const name of ["one", "two", "three", "four"]) await site.postJson("keys", { owner: "acme", name, scopes: ["predict"] });
  await Promise.all([{ theme: "light" }, { theme: "dark" }, { theme: "light", ...phone }, { theme: "dark", ...phone }].map(checkAll));
});

async function status(key) {
  return (await fetch(`${site.url}/keys/current`, { headers: keyHeaders(key) })).status;
}
