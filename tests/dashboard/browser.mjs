// A browser page that records policy violations and script errors, and requests to other servers.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args: ["--no-sandbox"] });
}

/** Opens a page; `page.faults` collects what must not happen. */
export async function openPage(browser, server, { width = 1440, height = 900, theme = "light" } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, acceptDownloads: true });
  const page = await context.newPage();
  page.faults = [];
  page.on("request", (request) => {
    const isOwn = request.url().startsWith(server) || request.url().startsWith("blob:") || request.url() === "about:blank";
    if (!isOwn) page.faults.push(`request to ${request.url()}`);
  });
  page.on("pageerror", (error) => page.faults.push(`script error: ${error.message}`));
  page.on("dialog", (dialog) => {
    page.faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("console", (message) => {
    if (/Content Security Policy|Trusted/i.test(message.text())) page.faults.push(message.text());
  });
  return page;
}

/** Opens a view by its address, as a link from elsewhere does. */
export async function visit(page, server, address) {
  await page.goto("about:blank");
  await page.goto(`${server}/#/${address}`);
  await page.waitForSelector("main h1");
}

/** Violations that axe calls serious or critical, and content that is wider than the page. */
export async function accessibilityFaults(page) {
  const found = await page.evaluate(`${AXE}; axe.run(document, { resultTypes: ["violations"] })`);
  const serious = found.violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
  const faults = serious.map((violation) => `${violation.id} at ${violation.nodes[0].target.join(" ")}`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  return overflow > 0 ? [...faults, `the page is ${overflow} pixels wider than the window`] : faults;
}
