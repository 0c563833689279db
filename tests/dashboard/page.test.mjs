// What all views have in common: keyboard, sign-in, accessibility, and texts that are not markup.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessibilityFaults, visit } from "./browser.mjs";
import { rows, startSite, status } from "./fixture.mjs";
import { startServer, trainAdapter } from "./server.mjs";

const KEY = "a-key-for-the-dashboard";
const MARKUP = ['<img src=x onerror="alert(1)">', '"><script>alert(2)</script>', "javascript:alert(3)", "<svg/onload=alert(4)>"];
const site = startSite();

test("the link that skips the navigation moves the focus and keeps the view", async (t) => {
  const page = await site.pageFor(t);
  await visit(page, site.url, "system");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  assert.match(page.url(), /#\/system$/);
  assert.equal(await page.textContent("main h1"), "System");
});

test("a view that is updated keeps the focus, on a server with small pages too", async (t) => {
  const small = await startServer("--default-page-size", "2", "--max-page-size", "2");
  t.after(() => small.stop());
  const page = await site.pageFor(t, { url: small.url });
  for (const name of ["one", "two", "three"]) await trainAdapter(small.url, { name, method: { type: "head" }, hyperparameters: { epochs: 1 } }, "small.csv", rows("text,label"));
  await visit(page, small.url, "adapters");
  assert.equal(await page.locator("tbody tr").count(), 3);
  await visit(page, small.url, "jobs");
  await page.click('button:text-is("Show more")');
  await page.waitForSelector("tbody tr:nth-child(3)");
  await visit(page, small.url, "system");
  const requests = page.getByRole("group", { name: "Requests by route" });
  await requests.focus();
  await page.waitForResponse((response) => response.url().endsWith("/metrics"));
  await page.waitForResponse((response) => response.url().endsWith("/metrics"));
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Requests by route");
});

test("markup in texts, labels, file names and metadata stays text", async (t) => {
  const page = await site.pageFor(t);
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const lines = Array.from({ length: 24 }, (_, index) => `${quoted(`${MARKUP[index % 4]} ${index}`)},${quoted(MARKUP[index % 2])}`);
  const job = { method: { type: "head" }, metadata: { "<b>key": MARKUP[0] } };
  const trained = await trainAdapter(site.url, job, `${MARKUP[3].replace("/", " ")}.csv`, `text,label\n${lines.join("\n")}\n`);
  const text = encodeURIComponent(MARKUP.join("\n"));
  const views = ["jobs", `jobs/${trained.id}`, "adapters", `adapters/${trained.adapter_id}`, "datasets", `datasets/${trained.dataset_id}`,
    `new?dataset=${trained.dataset_id}&name=${text}`, `playground?model=${trained.adapter_id}&text=${text}`, `${text}/${text}`];
  for (const view of views) {
    await visit(page, site.url, view);
    await page.waitForLoadState("networkidle");
    assert.equal(await page.locator("main script, main img, main iframe, main [onerror], main [onload]").count(), 0, view);
  }
  await visit(page, site.url, `jobs/${trained.id}`);
  await page.waitForSelector('[aria-label="Confusion matrix"]');
  assert.ok((await page.textContent("main")).includes(MARKUP[0]));
});

test("a job is started with the keyboard alone", async (t) => {
  const page = await site.pageFor(t);
  await page.goto(site.url);
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
  t.after(() => locked.stop());
  const page = await site.pageFor(t, { url: locked.url });
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
  await page.evaluate(() => sessionStorage.setItem("espalier-conversations", '{"base":[{"role":"user","content":"hello"}]}'));
  await page.reload();
  await page.click('button:text-is("Sign out")');
  await page.waitForSelector("dialog");
  assert.equal(await page.evaluate(() => sessionStorage.getItem("espalier-conversations")), "{}");
});

test("every view is accessible, light and dark, on a phone and on a wide screen", async (t) => {
  const trained = await trainAdapter(site.url, { name: "shown", method: { type: "lora" }, hyperparameters: { epochs: 4 } }, "shown.csv", rows("text,label"));
  const views = ["jobs", `jobs/${trained.id}`, "new", `new?dataset=${trained.dataset_id}&h.epochs=2`, "adapters", "adapters/shown",
    `playground?model=base&model=${trained.adapter_id}&text=where%20is%20my%20card%0Amy%20pin`, "datasets", `datasets/${trained.dataset_id}`, "system"];
  const phone = { width: 390, height: 844 };
  const checkAll = async (settings) => {
    const page = await site.pageFor(t, settings);
    for (const view of views) {
      await visit(page, site.url, view);
      await page.waitForLoadState("networkidle");
      assert.deepEqual(await accessibilityFaults(page), [], `${view} ${JSON.stringify(settings)}`);
    }
  };
  await Promise.all([{ theme: "light" }, { theme: "dark" }, { theme: "light", ...phone }, { theme: "dark", ...phone }].map(checkAll));
});
