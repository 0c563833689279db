// Starts the page: session, navigation, theme, and the view of the address.

import * as api from "./api.js";
import { currentAddress } from "./router.js";
import { el, replace } from "./dom.js";
import { askForKey, errorNotice } from "./feedback.js";

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
  const [name = "jobs", ...rest] = address.parts;
  const view = VIEWS.find((candidate) => candidate.name === name);
  showNavigation(view?.name);
  const place = el("div", { class: "stack" });
  replace(main, place);
  if (!view) {
    replace(place, el("h1", {}, "No such page"), el("p", {}, el("a", { href: "#/jobs" }, "Go to the jobs")));
    return;
  }
  document.title = `${rest[0] ?? view.title} · espalier`;
  try {
    const module = await import(rest.length && DETAILS[name] ? DETAILS[name] : view.module);
    await module.show(place, { ...address, rest, signal });
  } catch (error) {
    if (signal.aborted) return;
    const again = el("button", { type: "button", click: showView }, "Try again");
    replace(place, el("h1", {}, view.title), errorNotice(error), el("div", {}, again));
  }
  if (!signal.aborted) focusHeading(place);
}

/** Moves the focus to the new view, as a page load does, unless the user is somewhere in it already. */
let isFirstView = true;
function focusHeading(place) {
  const heading = place.querySelector("h1");
  if (heading && !isFirstView && !main.contains(document.activeElement)) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  isFirstView = false;
}

function prepareTheme() {
  const button = document.getElementById("theme");
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
  };
  const stored = localStorage.getItem("espalier-theme");
  if (stored) document.documentElement.dataset.theme = stored;
  show();
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("espalier-theme", document.documentElement.dataset.theme);
    show();
    document.dispatchEvent(new Event("themechange"));
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
  signOut.addEventListener("click", async () => {
    await api.remove("session");
    location.reload();
  });
}

async function showBaseName() {
  const base = await api.getJson("base");
  const place = document.getElementById("base-name");
  place.textContent = base.name;
  place.title = `Base model ${base.name}`;
}

async function start() {
  prepareTheme();
  try {
    await prepareSession();
  } catch (error) {
    replace(main, errorNotice(error), el("div", {}, el("button", { type: "button", click: () => location.reload() }, "Try again")));
    return;
  }
  addEventListener("hashchange", showView);
  await showView();
  await showBaseName().catch(() => {});
}

start();
