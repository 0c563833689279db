// A server process for the tests, on SQLite in a temporary folder and a free port.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_LIMIT = 30_000;
const TRAINING_LIMIT = 120_000;

export async function startServer(...settings) {
  const folder = mkdtempSync(join(tmpdir(), "espalier-dashboard-"));
  const model = settings.includes("--model") ? [] : ["--model", process.env.ESPALIER_TEST_MODEL ?? "tests/fixtures/tiny-bert"];
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(ESPALIER_|DATABASE_URL)/.test(name)));
  const child = spawn(process.env.ESPALIER_PROGRAM, ["serve", ...model, "--data-dir", folder, "--listen", "127.0.0.1:0", ...settings],
    { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  const address = await new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      child.kill("SIGKILL");
      reject(new Error(`the server does not listen after ${START_LIMIT / 1000} s:\n${log}`));
    }, START_LIMIT);
    const read = (text) => {
      log += text;
      const found = /listening.*address=([\d.:]+)/.exec(log.replace(/\u001b\[[\d;]*m/g, ""));
      if (!found) return;
      clearTimeout(late);
      resolve(found[1]);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("exit", (code) => reject(new Error(`the server ended with code ${code}:\n${log}`)));
  });
  const stop = () => new Promise((resolve) => {
    child.removeAllListeners("exit");
    child.on("exit", () => {
      rmSync(folder, { recursive: true, force: true });
      resolve();
    });
    child.kill("SIGTERM");
  });
  return { url: `http://${address}`, database: join(folder, "espalier.db"), stop };
}

/** Headers of a request with this API key; none without a key. */
export function keyHeaders(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Sends a job with these rows and waits for its end. */
export async function trainAdapter(server, job, fileName, rows, key) {
  const headers = keyHeaders(key);
  const form = new FormData();
  form.append("job", new Blob([JSON.stringify(job)], { type: "application/json" }));
  form.append("dataset", new Blob([rows]), fileName);
  const answer = await fetch(`${server}/jobs`, { method: "POST", headers, body: form });
  const created = await answer.json();
  if (answer.status !== 202) throw new Error(JSON.stringify(created));
  return waitFor(async () => {
    const found = await (await fetch(`${server}/jobs/${created.id}`, { headers })).json();
    if (["failed", "cancelled"].includes(found.status)) throw new Error(`the job is ${found.status}: ${JSON.stringify(found.error)}`);
    return found.status === "succeeded" && found;
  }, TRAINING_LIMIT);
}

/** Waits until `check` returns something that is true, and returns it. */
export async function waitFor(check, limit = 20_000) {
  const end = Date.now() + limit;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`nothing after ${limit / 1000} s: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
