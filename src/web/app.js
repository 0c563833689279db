// Starts the page: session, navigation, theme, and the view of the address.

import * as api from "./api.js";
import { credential, may, scopeNotice, setCredential } from "./credential.js";
import { forgetConversations } from "./conversations.js";
import { el, replace } from "./dom.js";
import { act, askForKey, errorNotice, focusHeading } from "./feedback.js";
import { currentAddress, isViewAddress, setFirstView } from "./router.js";
import { prepareTheme } from "./theme.js";

/** Views, each with the scopes of which a credential needs one. */
const VIEWS = [
  { name: "jobs", title: "Jobs", module: "./view-jobs.js", details: "./view-job.js", scopes: ["train"] },
  { name: "new", title: "New job", module: "./view-new-job.js", scopes: ["train"] },
  { name: "adapters", title: "Adapters", module: "./view-adapters.js", details: "./view-adapter.js", scopes: ["adapters:read", "adapters:write"] },
  { name: "playground", title: "Playground", module: "./view-playground.js", scopes: ["predict", "generate"] },
  { name: "datasets", title: "Datasets", module: "./view-datasets.js", details: "./view-dataset.js", scopes: ["train"] },
  { name: "usage", title: "Usage", module: "./view-usage.js", scopes: [] },
  { name: "access", title: "Access", module: "./view-access.js", scopes: ["admin"] },
  { name: "system", title: "System", module: "./view-system.js", scopes: [] },
];

const main = document.getElementById("main");
let leaving = new AbortController();
let asking = null;
let isFirstView = true;

function offeredViews() {
  return VIEWS.filter((view) => may(...view.scopes));
}

function showNavigation(active) {
  const links = offeredViews().map((view) =>
    el("a", { href: `#/${view.name}`, "aria-current": view.name === active ? "page" : null }, view.title));
  replace(document.getElementById("navigation"), links);
}

async function showView() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const address = currentAddress();
  const [name, ...rest] = address.parts;
  const view = VIEWS.find((candidate) => candidate.name === name);
  showNavigation(view?.name);
  const place = el("div", { class: "stack" });
  replace(main, place);
  document.title = `${view ? rest[0] ?? view.title : "No such page"} · espalier`;
  if (view) await showIn(place, view, { ...address, rest, signal });
  else replace(place, el("h1", {}, "No such page"), el("p", {}, el("a", { href: "#/" }, "Go to the first page")));
  // The focus follows, unless the user is somewhere in the view already.
  if (!signal.aborted && !isFirstView && !main.contains(document.activeElement)) focusHeading();
  isFirstView = false;
}

async function showIn(place, view, address) {
  if (!may(...view.scopes)) {
    replace(place, el("h1", {}, view.title), scopeNotice(`The view “${view.title}”`, view.scopes));
    return;
  }
  try {
    const module = await import((address.rest.length && view.details) || view.module);
    await module.show(place, address);
  } catch (error) {
    if (address.signal.aborted) return;
    const again = el("button", { type: "button", click: showView }, "Try again");
    replace(place, el("h1", {}, view.title), errorNotice(error), el("div", {}, again));
  }
}

/** The link would change the address, which names the view. */
function prepareSkipLink() {
  document.querySelector(".skip-link").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

/** Asks for a key once, whatever number of requests need it. */
function signIn() {
  asking ??= askForKey((key) => api.postJson("session", { key })).then(async () => {
    asking = null;
    document.getElementById("sign-out").hidden = false;
    await readCredential();
  });
  return asking;
}

/** Reads what the session may do. The page of another credential is another page. */
async function readCredential() {
  const earlier = credential();
  const found = await api.getJson("keys/current");
  setCredential(found);
  if (earlier && earlier.credential !== found.credential) {
    forgetConversations();
    location.reload();
    return;
  }
  setFirstView(offeredViews()[0].name);
  const owner = document.getElementById("owner");
  owner.hidden = !api.server.keyRequired;
  owner.textContent = `Owner ${found.owner}`;
  owner.title = `Owner ${found.owner}, credential ${found.credential}`;
}

async function prepareSession() {
  api.onSignInNeeded(signIn);
  const session = await api.getJson("session");
  api.server.keyRequired = session.key_required;
  const signOut = document.getElementById("sign-out");
  signOut.hidden = !session.expires_at;
  if (session.signed_in) await readCredential();
  else await signIn();
  signOut.addEventListener("click", () => {
    const problems = el("div");
    main.prepend(problems);
    act(signOut, problems, async () => {
      await api.remove("session");
      forgetConversations();
      location.reload();
    });
  });
}

async function showBaseName() {
  const base = await api.getJson("base");
  const place = document.getElementById("base-name");
  place.textContent = base.name;
  place.title = `Base model ${base.name}`;
}

async function start() {
  prepareSkipLink();
  prepareTheme(document.getElementById("theme"));
  try {
    await prepareSession();
  } catch (error) {
    replace(main, errorNotice(error), el("div", {}, el("button", { type: "button", click: () => location.reload() }, "Try again")));
    return;
  }
  addEventListener("hashchange", () => isViewAddress() && showView());
  await showView();
  await showBaseName().catch(() => {});
}

start();
