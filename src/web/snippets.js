// The same request as curl, command line and Python, ready to copy.

import { el, replace } from "./dom.js";
import { copyText } from "./feedback.js";
import { apiUrl, server } from "./api.js";

/** Quotes a word for a POSIX shell. */
function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function origin() {
  return apiUrl("").replace(/\/$/, "");
}

function curlKey() {
  return server.keyRequired ? ' -H "authorization: Bearer $ESPALIER_API_KEY"' : "";
}

const PYTHON_KEY = 'headers={"authorization": "Bearer " + os.environ["ESPALIER_API_KEY"]}';

/** Value of a part of curl's `-F`, which ends at `;` and `,` unless it is quoted. */
function formValue(text) {
  return /[;,"\\]/.test(text) ? `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : text;
}

/** JSON as Python source. */
function python(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((item) => python(item)).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${python(item)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** Request of a job with a file. */
export function jobSnippets(job, fileName) {
  const { dataset_id: _, ...request } = job;
  const text = JSON.stringify(request);
  const file = shellQuoted(fileName);
  const isEmpty = Object.keys(request).length === 0;
  const curl = [
    `curl ${origin()}/jobs${curlKey()} \\`,
    `     -F ${shellQuoted(`job=${text.includes(";") ? formValue(text) : text};type=application/json`)} \\`,
    `     -F ${shellQuoted(`dataset=@${formValue(fileName)}`)}`,
  ].join("\n");
  const address = `--server ${origin()}`;
  const cli = isEmpty
    ? `espalier train ${file} ${address}`
    : `cat > job.json <<'EOF'\n${JSON.stringify(request, null, 2)}\nEOF\nespalier train ${file} --job job.json ${address}`;
  const code = [
    server.keyRequired ? "import json, os, requests" : "import json, requests",
    "",
    `job = ${python(request)}`,
    `with open(${JSON.stringify(fileName)}, "rb") as file:`,
    `    answer = requests.post("${origin()}/jobs", files={`,
    "        \"job\": (None, json.dumps(job), \"application/json\"),",
    `        "dataset": (${JSON.stringify(fileName)}, file),`,
    server.keyRequired ? `    }, ${PYTHON_KEY})` : "    })",
    "print(answer.json()[\"id\"])",
  ].join("\n");
  return { curl, "Command line": cli, Python: code };
}

/** A request with a JSON body. */
export function jsonSnippets(path, body) {
  const url = `${origin()}/${path}`;
  const curl = `curl ${shellQuoted(url)}${curlKey()} -H 'content-type: application/json' \\\n     -d ${shellQuoted(JSON.stringify(body))}`;
  const key = server.keyRequired ? `, ${PYTHON_KEY}` : "";
  const modules = server.keyRequired ? "os, requests" : "requests";
  const code = `import ${modules}\n\nanswer = requests.post(${JSON.stringify(url)}, json=${python(body)}${key})\nprint(answer.json())`;
  return { curl, Python: code };
}

let chosen = "curl";
/** Tabs with the forms of a request. */
export function snippetTabs(snippets) {
  const place = el("div", { class: "stack" });
  const show = (name, focus) => {
    chosen = name;
    const active = snippets[name] ? name : Object.keys(snippets)[0];
    const tabs = Object.keys(snippets).map((tab) =>
      el("button", { type: "button", role: "tab", "aria-selected": String(tab === active), tabindex: tab === active ? "0" : "-1", click: () => show(tab, true) }, tab));
    const move = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const names = Object.keys(snippets);
      if (step) show(names[(names.indexOf(active) + step + names.length) % names.length], true);
    };
    const copy = el("button", { type: "button", class: "quiet", click: () => copyText(snippets[active], copy) }, "Copy");
    replace(place,
      el("div", { class: "row" }, el("div", { class: "tabs", role: "tablist", "aria-label": "Form of the request", keydown: move }, tabs), copy),
      el("pre", { tabindex: "0", role: "tabpanel", "aria-label": `As ${active}` }, el("code", {}, snippets[active])));
    if (focus) tabs[Object.keys(snippets).indexOf(active)].focus();
  };
  show(chosen, false);
  return place;
}
