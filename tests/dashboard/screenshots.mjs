// Writes the screenshots of README.md and docs/dashboard.md, from a server that trains on the samples of examples/.

import { mkdirSync, readFileSync } from "node:fs";
import { launch, openPage, visit } from "./browser.mjs";
import { startServer, trainAdapter } from "./server.mjs";

const FOLDER = "docs/images";
const SAMPLE = readFileSync("examples/banking77-sample.csv", "utf8");
const columns = { label: "category" };

mkdirSync(FOLDER, { recursive: true });
const [browser, server] = await Promise.all([launch(), startServer()]);
const train = (job, file = "banking77-sample.csv", rows = SAMPLE) => trainAdapter(server.url, job, file, rows);
await train({ name: "trips", hyperparameters: { epochs: 8 } }, "trips.jsonl", readFileSync("examples/trips.jsonl", "utf8"));
const head = await train({ name: "questions", columns, method: { type: "head" } });
const lora = await train({ name: "questions", columns, method: { type: "lora" }, hyperparameters: { epochs: 4 } });
const text = encodeURIComponent("where is my card\nI want a refund\nhow old must I be to open an account");
const shots = [
  { name: "new-job", address: `new?dataset=${lora.dataset_id}&name=questions&c.label=category&col=text&col=category`, ready: ".beside pre" },
  { name: "job", address: `jobs/${lora.id}?with=${head.id}`, ready: ".chart canvas" },
  { name: "playground", address: `playground?model=base&model=${lora.adapter_id}&text=${text}`, ready: ".outputs .bar" },
];
for (const { name, address, ready } of shots) {
  const page = await openPage(browser, server.url, { width: 1200, height: 800 });
  await visit(page, server.url, address);
  await page.waitForSelector(ready);
  await page.waitForLoadState("networkidle").catch(() => {});
  await page.screenshot({ path: `${FOLDER}/dashboard-${name}.png` });
  if (page.faults.length) throw new Error(page.faults.join("\n"));
  await page.context().close();
}
await browser.close();
await server.stop();
