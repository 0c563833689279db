// Browser, server and files that the tests of one file share.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { launch, openPage } from "./browser.mjs";
import { startServer } from "./server.mjs";

class Site {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "espalier-files-"));
  }

  async start(settings) {
    [this.browser, this.server] = await Promise.all([launch(), startServer(...settings)]);
    this.url = this.server.url;
  }

  async stop() {
    await this.browser?.close();
    await this.server?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Page whose faults fail the test at its end. */
  async pageFor(t, options = {}) {
    const page = await openPage(this.browser, options.url ?? this.url, options);
    t.after(async () => {
      await page.context().close();
      assert.deepEqual(page.faults, []);
    });
    return page;
  }

  file(name, content) {
    const path = join(this.folder, name);
    writeFileSync(path, content);
    return path;
  }

  /** Stores rows as a dataset and returns it. */
  async dataset(name, content) {
    const form = new FormData();
    form.append("dataset", new Blob([content]), name);
    return this.api("datasets", { method: "POST", body: form });
  }

  async api(path, options) {
    const answer = await fetch(`${this.url}/${path}`, options);
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.status === 204 ? null : answer.json();
  }

  async postJson(path, body) {
    return this.api(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  }
}

/** Site of a file of tests: it starts before them and stops after them. */
export function startSite(...settings) {
  const shared = new Site();
  before(() => shared.start(settings));
  after(() => shared.stop());
  return shared;
}

/** Rows of two labels, which a model tells apart by their words. */
export function rows(header, count = 24) {
  const lines = Array.from({ length: count }, (_, index) => (index % 2 ? `my card is late ${index},card` : `I lost my pin ${index},pin`));
  return `${header}\n${lines.join("\n")}\n`;
}

/** Waits until the view of a job shows this status. */
export function status(page, text) {
  return page.waitForSelector(`.page-head .badge:text-is("${text}")`, { timeout: 60_000 });
}
