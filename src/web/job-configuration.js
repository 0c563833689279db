// Resolved configuration of a job; what differs from the defaults of its dataset is marked.

import { card } from "./cards.js";
import { el } from "./dom.js";
import { shortVersion, words } from "./format.js";
import { resolvedHyperparameters, shownValue } from "./job-request.js";

/** `isSourceDeleted`: whether the adapter that the job started from is deleted. */
export function configurationCard(job, defaults, isSourceDeleted) {
  const groups = [
    ["Hyperparameters", job.hyperparameters, defaults && resolvedHyperparameters(defaults)],
    [`Method: ${words(job.method.type)}`, job.method, defaults?.method.type === job.method.type ? defaults.method : null],
    ["Task", job.task, defaults?.task],
    ["Validation", job.validation, defaults?.validation],
  ];
  const { from_adapter: from } = job;
  return card("Configuration", defaults ? "Marked values differ from the defaults for this dataset" : null,
    el("div", { class: "groups" }, groups.map(([title, values, standard]) =>
      el("div", { class: "stack" }, el("h3", {}, title), settingsList(values, standard)))),
    from && el("p", { class: "small" }, `Started from adapter ${shortVersion(from.version)} (head: ${from.head})`,
      isSourceDeleted && ", which is deleted: a clone starts with new parameters"),
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
