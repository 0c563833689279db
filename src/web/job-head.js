// Head of a job's view: its name, its status, and what can be done with it.

import { encoded, post, remove } from "./api.js";
import { may } from "./credential.js";
import { el } from "./dom.js";
import { act, confirmed } from "./feedback.js";
import { shortId } from "./format.js";
import { formQuery } from "./job-request.js";
import { isActive, statusText } from "./job-status.js";
import { go, href } from "./router.js";

/** What the head shows: it is built again where this changes. */
export function headKey({ job, source }) {
  return JSON.stringify([statusText(job), job.adapter?.id, job.name, source]);
}

/** `changed` is called after an action. */
export function headParts({ job, defaults, source }, problems, changed) {
  const button = (label, action, className = "") => {
    const element = el("button", { type: "button", class: className, click: () => act(element, problems, action) }, label);
    return element;
  };
  const change = (verb) => async () => {
    await post(encoded`jobs/${job.id}/${verb}`);
    await changed();
  };
  const ask = (verb, text, action) => async () => (await confirmed(`${verb} this job?`, text, verb)) && action();
  const deleteJob = async () => {
    await remove(encoded`jobs/${job.id}`);
    go("jobs");
  };
  return [
    el("h1", { tabindex: "-1" }, job.name ?? `Job ${shortId(job.id)}`),
    el("span", { class: `badge ${job.status}` }, statusText(job)),
    el("div", { class: "end" },
      ["queued", "running"].includes(job.status) && button("Pause", change("pause")),
      job.status === "paused" && button("Resume", change("resume"), "primary"),
      job.status === "failed" && button("Retry", change("retry"), "primary"),
      isActive(job) && button("Cancel", ask("Cancel", "A cancelled job cannot be resumed.", change("cancel")), "danger"),
      job.adapter && adapterLinks(job),
      // Without the defaults and the adapter that it started from, a clone would be another job.
      source && el("a", { class: "button", href: href("new", formQuery(job, defaults, source.id)) }, "Clone"),
      !isActive(job) && button("Delete", ask("Delete", "The job and its curves are deleted. Its adapter is kept.", deleteJob), "danger")),
  ];
}

function adapterLinks({ adapter, dataset_id: dataset, name }) {
  return [
    may("predict", "generate") && el("a", { class: "button primary", href: href("playground", { model: ["base", adapter.id] }) }, "Try it"),
    el("a", { class: "button", href: href("new", { dataset, from: adapter.id, name }) }, "Train further"),
  ];
}
