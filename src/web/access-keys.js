// Keys of all owners: their list, rotation and revocation.

import { encoded, list, postJson, remove, server } from "./api.js";
import { emptyCard } from "./cards.js";
import { credential } from "./credential.js";
import { el, field, replace, scrollable, select, table } from "./dom.js";
import { act, announce, confirmed } from "./feedback.js";
import { dateTime } from "./format.js";
import { limitsText } from "./limits.js";
import { newKeyCard } from "./new-key.js";
import { href, setQuery } from "./router.js";

const SHOWN_KEYS = 1000;
const STATUSES = ["active", "expired", "revoked"];
const GRACE_PERIODS = [["0", "It ends at once"], ["3600", "1 hour"], ["86400", "24 hours"], ["604800", "7 days"]];

const NO_KEYS = "This server has no keys: it accepts every caller. Start it with the key of an administrator (--admin-keys) to create others.";

export async function keyList(place, view) {
  if (!server.keyRequired) {
    replace(place, el("p", { class: "notice" }, NO_KEYS));
    return;
  }
  await new KeyList(place, view).refresh();
}

class KeyList {
  constructor(place, view) {
    Object.assign(this, { view, keys: [] });
    this.created = el("div");
    this.problems = el("div");
    this.tools = el("div", { class: "row" });
    this.rows = el("div", { class: "stack" });
    replace(place, this.created, this.problems, this.tools, this.rows);
  }

  async refresh() {
    this.keys = await list("keys", SHOWN_KEYS, { signal: this.view.signal });
    this.showTools();
    this.showRows();
  }

  chosen(name) {
    return this.view.query.get(name) ?? "";
  }

  showTools() {
    const owners = [...new Set(this.keys.map((key) => key.owner))].sort();
    const filter = (label, name, options) => select([["", label], ...options.map((one) => [one, one])], this.chosen(name), (value) => {
      if (value) this.view.query.set(name, value);
      else this.view.query.delete(name);
      setQuery(this.view);
      this.showRows();
    }, { "aria-label": name });
    replace(this.tools, filter("All owners", "owner", owners), filter("All statuses", "status", STATUSES),
      el("a", { class: "button primary", href: href("access/new") }, "New key"),
      this.keys.length >= SHOWN_KEYS && el("span", { class: "muted small" }, "The newest 1,000 keys"));
  }

  showRows() {
    const keys = this.keys.filter((key) => ["owner", "status"].every((name) => !this.chosen(name) || key[name] === this.chosen(name)));
    const headings = ["Key", "Owner", "Status", "Scopes", "Adapters", "Limits", "Last use", "Expires", "Actions"];
    const rows = keys.map((key) => [
      el("div", { class: "key-name" }, el("strong", {}, key.name), el("code", { title: `id ${key.id}, created ${dateTime(key.created_at)} by ${key.created_by}` }, `${key.prefix}…`)),
      key.owner, el("span", { class: `badge ${{ active: "succeeded", expired: "paused" }[key.status] ?? ""}` }, key.status),
      key.scopes.join(", "), key.adapters?.join(", ") ?? "all", limitsText(key.limits),
      key.last_used_at ? dateTime(key.last_used_at) : "never", key.expires_at ? dateTime(key.expires_at) : "never",
      this.actions(key),
    ]);
    const nothing = this.keys.length ? el("p", { class: "muted" }, "No such key") : emptyCard("No key yet", "Keys of the settings are not listed here.");
    replace(this.rows, rows.length
      ? el("div", { class: "card" }, scrollable("Keys", table(headings, rows, { className: "stacking small", caption: "Keys, newest first" })))
      : nothing);
  }

  actions(key) {
    if (key.status !== "active") return "–";
    const button = (verb, className, action) => {
      const element = el("button", { type: "button", class: className, "aria-label": `${verb} the key ${key.name} of ${key.owner}` }, verb);
      element.addEventListener("click", () => act(element, this.problems, action));
      return element;
    };
    return el("div", { class: "row" }, button("Rotate", "", () => this.rotate(key)), button("Revoke", "danger", () => this.revoke(key)));
  }

  async rotate(key) {
    const grace = select(GRACE_PERIODS, "86400", () => {});
    const text = `A new key with the same owner, name, scopes, adapters and limits is created in place of “${key.name}” (${key.prefix}…).`;
    if (!(await confirmed("Rotate this key?", text, "Rotate", field("The old key stays valid for", grace)))) return;
    const created = await postJson(encoded`keys/${key.id}/rotate`, { grace_seconds: Number(grace.value) });
    replace(this.created, newKeyCard(created));
    this.created.querySelector("input").focus();
    await this.refresh();
  }

  async revoke(key) {
    const isOwn = credential().credential === `key:${key.id}`;
    const consequence = isOwn
      ? "You are signed in with this key: your session ends."
      : "Programs that use it are refused from then on, and the sessions that it signed in end.";
    if (!(await confirmed(`Revoke “${key.name}” of ${key.owner}?`, consequence, "Revoke"))) return;
    await remove(encoded`keys/${key.id}`);
    announce("The key is revoked");
    await this.refresh();
  }
}
