// Light and dark: the system's theme until the button chooses one.

const KEY = "espalier-theme";
const systemTheme = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemTheme.matches;
}

/** A browser may refuse storage: then the choice lasts until the page is closed. */
function storage(action) {
  try {
    return action(localStorage);
  } catch {
    return null;
  }
}

export function prepareTheme(button) {
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
    document.dispatchEvent(new Event("themechange"));
  };
  const stored = storage((found) => found.getItem(KEY));
  if (stored) document.documentElement.dataset.theme = stored;
  show();
  systemTheme.addEventListener("change", show);
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    storage((found) => found.setItem(KEY, theme));
    show();
  });
}
