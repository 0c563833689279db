// Many jobs and long curves.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { visit } from "./browser.mjs";
import { rows, startSite } from "./fixture.mjs";
import { trainAdapter } from "./server.mjs";

const site = startSite();

test("10,000 jobs and 100,000 rows of metrics stay fast, and live updates take no memory", async (t) => {
  await trainAdapter(site.url, { name: "copied", method: { type: "head" } }, "copied.csv", rows("text,label"));
  const id = execFileSync("python3", ["tests/dashboard/seed.py", site.server.database, "10000", "100000"], { encoding: "utf8" }).trim();
  const page = await site.pageFor(t);
  const firstPaint = () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  // From an event of the user until the frame that shows its effect: the next one, or the first that has the element `shown`.
  const interaction = (selector, value, shown = "body") => page.evaluate(([selector, value, shown]) => new Promise((resolve) => {
    const control = document.querySelector(selector);
    const start = performance.now();
    if (value == null) control.click();
    else {
      control.value = value;
      control.dispatchEvent(new Event("change"));
    }
    const frame = () => setTimeout(() => (document.querySelector(shown) ? resolve(performance.now() - start) : requestAnimationFrame(frame)));
    requestAnimationFrame(frame);
  }), [selector, value, shown]);

  await visit(page, site.url, "jobs");
  await page.waitForSelector("tbody tr:nth-child(50)");
  const list = { paint: await firstPaint(), filter: await interaction('select[aria-label="Status"]', "cancelled", "tbody tr:first-child .badge.cancelled") };
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

  await visit(page, site.url, `jobs/${id}`);
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
});
