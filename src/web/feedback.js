// What the page tells the user: errors, announcements for screen readers, questions.

import { el, replace, setFieldError } from "./dom.js";
import { duration } from "./format.js";

export function announce(text) {
  const region = document.getElementById("announcements");
  region.textContent = "";
  // A region that was emptied first is read again where the text is the same.
  requestAnimationFrame(() => (region.textContent = text));
}

/** Moves the focus to the heading of the view, as a page load does. */
export function focusHeading() {
  const heading = document.querySelector("main h1");
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** An error with its fields and lines, and the id under which the server's log has it. `note` follows the message. */
export function errorNotice(error, { shown = [], note } = {}) {
  const fields = (error.fields ?? []).filter((field) => !shown.includes(field.pointer));
  const place = (field) => (field.line != null ? `Line ${field.line}: ` : field.pointer ? `${field.pointer}: ` : "");
  return el("div", { class: "notice error", role: "alert" },
    el("strong", {}, error.message, note && ` ${note}`),
    error.retryAfter && !note && el("span", {}, `Try again in ${duration(error.retryAfter)}.`),
    fields.length > 0 && el("ul", {}, fields.slice(0, 30).map((field) => el("li", {}, place(field), field.message))),
    fields.length > 30 && el("span", {}, `… and ${fields.length - 30} more`),
    error.requestId && el("span", { class: "small" }, "Request id ", el("code", {}, error.requestId)));
}

/** Shows the error of a request that is repeated; null removes it. The same error is announced once. */
export function showPollingError(place, error) {
  if (!error) {
    replace(place);
    return;
  }
  const notice = errorNotice(error, { note: "Retrying …" });
  const text = (element) => element?.querySelector("strong").textContent;
  if (text(place.firstElementChild) !== text(notice)) replace(place, notice);
}

function restoreFocus(button) {
  if (button.isConnected && !button.hidden) button.focus();
  else focusHeading();
}

/** Runs an action of a button: the button is disabled, and an error is shown in `place`, by default as a notice. */
export async function act(button, place, action, notice = errorNotice) {
  const hadFocus = document.activeElement === button;
  button.disabled = true;
  replace(place);
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") replace(place, notice(error));
    return undefined;
  } finally {
    button.disabled = false;
    // A disabled button loses the focus.
    if (hadFocus && document.activeElement === document.body) restoreFocus(button);
  }
}

/** Sends a form: errors of its fields are shown at them, and others in `place`. `controls` has the control of each pointer. */
export function submitForm(button, place, controls, action) {
  const showErrors = (error) => {
    const shown = [];
    for (const [pointer, control] of Object.entries(controls)) {
      const found = error?.fields?.find((one) => one.pointer === pointer || one.pointer?.startsWith(`${pointer}/`));
      setFieldError(control, found?.message);
      if (found && shown.length === 0) control.focus();
      if (found) shown.push(found.pointer);
    }
    return shown;
  };
  showErrors(null);
  return act(button, place, action, (error) => errorNotice(error, { shown: showErrors(error) }));
}

/** Asks before something that cannot be undone. Leaving the view is a no. `content` follows the text. */
export function confirmed(title, text, verb, content) {
  return new Promise((resolve) => {
    const leave = () => close(false);
    const close = (answer) => {
      removeEventListener("hashchange", leave);
      dialog.close();
      dialog.remove();
      resolve(answer);
    };
    const dialog = el("dialog", { "aria-labelledby": "question", cancel: leave },
      el("form", { submit: (event) => { event.preventDefault(); close(true); } },
        el("h2", { id: "question" }, title),
        text && el("p", {}, text),
        content,
        el("div", { class: "row" },
          el("button", { type: "submit", class: "danger" }, verb),
          el("button", { type: "button", autofocus: true, click: leave }, "Keep"))));
    addEventListener("hashchange", leave);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Asks for an API key until the server accepts one. */
export function askForKey(createSession) {
  return new Promise((resolve) => {
    const place = el("div");
    const key = el("input", { type: "password", id: "api-key", autocomplete: "current-password", required: true });
    const button = el("button", { type: "submit", class: "primary" }, "Sign in");
    const submit = (event) => {
      event.preventDefault();
      act(button, place, async () => {
        await createSession(key.value);
        dialog.close();
        dialog.remove();
        resolve();
      });
    };
    const dialog = el("dialog", { "aria-labelledby": "sign-in-title", cancel: (event) => event.preventDefault() },
      el("form", { submit },
        el("h2", { id: "sign-in-title" }, "Sign in"),
        el("p", { class: "muted" }, "This server needs an API key. The browser keeps a session that scripts cannot read, not the key."),
        el("label", { for: "api-key" }, "API key"), key, place, el("div", { class: "row" }, button)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function copyText(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select the text to copy it";
  }
  announce(button.textContent);
  setTimeout(() => (button.textContent = label), 1500);
}

/** Saves text or a blob as a file. */
export function saveFile(name, content, type = "text/plain") {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
