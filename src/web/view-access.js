// Access: keys, owners and the audit log, for administrators.

import { auditLog } from "./access-audit.js";
import { keyForm } from "./access-key-form.js";
import { keyList } from "./access-keys.js";
import { ownerLimits, ownerList } from "./access-owners.js";
import { el, replace } from "./dom.js";
import { href } from "./router.js";

const PAGES = [
  { path: "access", title: "Keys", show: keyList },
  { path: "access/owners", title: "Owners", show: ownerList },
  { path: "access/audit", title: "Audit log", show: auditLog },
];

export async function show(place, view) {
  const page = pageOf(view.rest);
  if (!page) {
    replace(place, el("h1", {}, "No such page"), el("a", { href: "#/access" }, "Keys"));
    return;
  }
  const content = el("div", { class: "stack" });
  await page.show(content, view);
  if (view.signal.aborted) return;
  replace(place,
    el("div", { class: "page-head" }, el("h1", {}, page.title), el("nav", { class: "pages", "aria-label": "Access" }, PAGES.map((one) =>
      el("a", { href: href(one.path), "aria-current": one.path === page.path ? "page" : null }, one.title)))),
    content);
}

function pageOf(rest) {
  const [name, owner] = rest;
  if (name === "new") return { title: "New key", show: keyForm };
  if (name === "owners" && owner) return { title: `Limits of ${owner}`, show: ownerLimits };
  return PAGES.find((page) => page.path === ["access", ...rest].join("/"));
}
