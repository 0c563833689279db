// Builds elements. Text is inserted only as text nodes.

/** Creates an element. `attributes` with a function are listeners, `true` sets an empty attribute, `false` and null leave it out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  append(element, children);
  return element;
}

/** Creates an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  append(element, children);
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value ?? "";
    else if (name === "checked") element.checked = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child == null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** Sets text only where it changed, so that selections and screen readers are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let lastId = 0;
function newId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** A labelled control with a hint, and a place for the error of a request's field. */
export function field(label, control, { hint, error } = {}) {
  control.id ||= newId("field");
  const element = el("div", { class: "field" }, el("label", { for: control.id }, label), control);
  if (hint) describe(control, "hint", hint);
  if (error) setFieldError(control, error);
  return element;
}

/** Appends a text that describes a control to its field. */
function describe(control, className, text) {
  const note = el("span", { class: className, id: `${control.id}-${className}` }, text);
  control.parentElement.append(note);
  control.setAttribute("aria-describedby", [...describedBy(control), note.id].join(" "));
}

function describedBy(control) {
  return (control.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean);
}

/** Shows the error of a control that is in a field; an empty message removes it. */
export function setFieldError(control, message) {
  const shown = control.parentElement.querySelector(":scope > .error");
  if (shown) {
    shown.remove();
    control.removeAttribute("aria-invalid");
    const others = describedBy(control).filter((id) => id !== shown.id);
    if (others.length) control.setAttribute("aria-describedby", others.join(" "));
    else control.removeAttribute("aria-describedby");
  }
  if (!message) return;
  describe(control, "error", message);
  control.setAttribute("aria-invalid", "true");
}

/** Text area for names, one in a line. */
export function nameLines(names, placeholder) {
  return el("textarea", { rows: "3", autocomplete: "off", spellcheck: "false", value: names.join("\n"), placeholder });
}

/** Lines of a text area that are not empty. */
export function linesOf({ value }) {
  return value.split("\n").map((line) => line.trim()).filter(Boolean);
}

export function select(options, value, onChange, attributes = {}) {
  const control = el("select", { ...attributes, change: () => onChange(control.value) });
  for (const [optionValue, text] of options) {
    control.append(el("option", { value: optionValue, selected: optionValue === value }, text));
  }
  return control;
}

/** Table with a header row; cells are text or nodes. */
export function table(headings, rows, { className = "", caption } = {}) {
  const isNumber = (heading) => typeof heading === "object" && heading.number;
  const label = (heading) => (typeof heading === "object" ? heading.label : heading);
  const head = headings.map((heading) => el("th", { scope: "col", class: isNumber(heading) ? "number" : null }, label(heading)));
  const body = rows.map((cells) =>
    el("tr", {}, cells.map((cell, index) =>
      el("td", { class: isNumber(headings[index]) ? "number" : null, "data-label": label(headings[index]) }, cell))));
  return el("table", { class: className },
    caption && el("caption", { class: "visually-hidden" }, caption),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}

/** A region that scrolls sideways and can be reached by keyboard. */
export function scrollable(label, content, className = "scroll") {
  return el("div", { class: className, tabindex: "0", role: "group", "aria-label": label }, content);
}
