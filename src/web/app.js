// Starts the page: session, navigation, theme, and the view of the address.

import * as api from "./api.js";
import { forgetConversations } from "./conversations.js";
import { el, replace } from "./dom.js";
import { act, askForKey, errorNotice, focusHeading } from "./feedback.js";
import { currentAddress, isViewAddress } from "./router.js";
import { prepareTheme } from "./theme.js";

const VIEWS = [
  { name: "jobs", title: "Jobs", module: "./view-jobs.js" },
  { name: "new", title: "New job", module: "./view-new-job.js" },
  { name: "adapters", title: "Adapters", module: "./view-adapters.js" },
  { name: "playground", title: "Playground", module: "./view-playground.js" },
  { name: "datasets", title: "Datasets", module: "./view-datasets.js" },
  { name: "system", title: "System", module: "./view-system.js" },
];
const DETAILS = { jobs: "./view-job.js", adapters: "./view-adapter.js", datasets: "./view-dataset.js" };

const main = document.getElementById("main");
let leaving = new AbortController();
let asking = null;
let isFirstView = true;

function showNavigation(active) {
  const links = VIEWS.map((view) =>
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
  else replace(place, el("h1", {}, "No such page"), el("p", {}, el("a", { href: "#/jobs" }, "Go to the jobs")));
  // The focus follows, unless the user is somewhere in the view already.
  if (!signal.aborted && !isFirstView && !main.contains(document.activeElement)) focusHeading();
  isFirstView = false;
}

async function showIn(place, view, address) {
  try {
    const module = await import(address.rest.length && DETAILS[view.name] ? DETAILS[view.name] : view.module);
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

async function prepareSession() {
  api.onSignInNeeded(() => {
    asking ??= askForKey((key) => api.postJson("session", { key })).then(() => {
      asking = null;
      document.getElementById("sign-out").hidden = false;
    });
    return asking;
  });
  const session = await api.getJson("session");
  api.server.keyRequired = session.key_required;
  const signOut = document.getElementById("sign-out");
  signOut.hidden = !session.expires_at;
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
