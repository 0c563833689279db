// Browser, server and files that the tests of one file share.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { launch, openPage } from "./browser.mjs";
import { keyHeaders, startServer } from "./server.mjs";

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

  /** Answer of the API, with the site's key or another one. */
  async api(path, options = {}, key = this.key) {
    const answer = await fetch(`${this.url}/${path}`, { ...options, headers: { ...options.headers, ...keyHeaders(key) } });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.status === 204 ? null : answer.json();
  }

  async postJson(path, body, key = this.key) {
    return this.api(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }, key);
  }

  /** Creates a key of an owner and returns it. */
  async createKey(owner, scopes, settings = {}) {
    return (await this.postJson("keys", { owner, name: scopes.join(", "), scopes, ...settings })).key;
  }

  /** Page with the session of a key. */
  async signedInPage(t, key, options) {
    const page = await this.pageFor(t, options);
    const answer = await page.request.post(`${this.url}/session`, { data: { key } });
    assert.ok(answer.ok(), `session: ${answer.status()}`);
    return page;
  }
}

/** Site of a file of tests: it starts before them and stops after them. */
export function startSite(...settings) {
  const shared = new Site();
  before(() => shared.start(settings));
  after(() => shared.stop());
  return shared;
}

/** Site of a server with keys, whose API is called with the key of an administrator. */
export function startKeyedSite(...settings) {
  const key = "a-key-of-an-administrator";
  const shared = startSite("--admin-keys", key, ...settings);
  shared.key = key;
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
