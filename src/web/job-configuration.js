// Resolved configuration of a job; what differs from the defaults of its dataset is marked.

import { el } from "./dom.js";
import { words } from "./format.js";
import { shownValue } from "./job-request.js";

export function configurationCard(job, defaults) {
  const groups = [
    ["Hyperparameters", job.hyperparameters, defaults?.hyperparameters],
    [`Method: ${words(job.method.type)}`, job.method, job.method.type === "auto" ? null : defaults?.method],
    ["Task", job.task, defaults?.task],
    ["Validation", job.validation, defaults?.validation],
  ];
  return el("section", { class: "card", "aria-label": "Configuration" },
    el("div", { class: "card-head" }, el("h2", {}, "Configuration"),
      defaults && el("span", { class: "muted small" }, "Marked values differ from the defaults for this dataset")),
    el("div", { class: "groups" }, groups.map(([title, values, standard]) =>
      el("div", { class: "stack" }, el("h3", {}, title), settingsList(values, standard)))),
    job.from_adapter && el("p", { class: "small" }, `Started from adapter ${job.from_adapter.version.slice(0, 10)} (head: ${job.from_adapter.head})`),
    Object.keys(job.metadata ?? {}).length > 0 && settingsList(job.metadata));
}

function settingsList(values, standard) {
  const entries = Object.entries(values).filter(([name, value]) => value != null && name !== "candidates");
  return el("dl", { class: "settings-list" }, entries.map(([name, value]) => {
    const text = shownValue(value);
    const usual = standard && shownValue(standard[name]);
    const isChanged = standard && usual !== text;
    return [el("dt", {}, words(name)),
      el("dd", {}, isChanged ? el("span", { class: "changed", title: `Default: ${usual || "none"}` }, text) : text,
        isChanged && el("span", { class: "small muted" }, ` default ${usual || "none"}`))];
  }));
}
