// Updates elements in place: focus, typed text, scroll positions and open details are kept.

import { append } from "./dom.js";

/**
 * Makes the content of `element` equal to `children`. Elements that are kept keep their listeners as well, so that the listeners of new
 * elements must do the same as those of the elements in their place.
 */
export function patch(element, ...children) {
  const next = document.createDocumentFragment();
  append(next, children);
  patchChildren(element, next);
}

function patchChildren(element, next) {
  const nodes = [...next.childNodes];
  nodes.forEach((node, index) => {
    const current = element.childNodes[index];
    if (!current) element.append(node);
    else if (isSame(current, node)) patchNode(current, node);
    else current.replaceWith(node);
  });
  while (element.childNodes.length > nodes.length) element.lastChild.remove();
}

function isSame(current, next) {
  const isSameOption = current.nodeName !== "OPTION" || current.value === next.value;
  return current.nodeName === next.nodeName && current.id === next.id && isSameOption;
}

function patchNode(current, next) {
  if (current.nodeType === Node.TEXT_NODE) {
    if (current.data !== next.data) current.data = next.data;
    return;
  }
  // Options that move to the current element change the value of the next one.
  const { value, checked } = next;
  patchAttributes(current, next);
  patchChildren(current, next);
  patchValue(current, value, checked);
}

function patchAttributes(current, next) {
  const isKept = (name) => name === "open" || (name === "selected" && current.nodeName === "OPTION");
  for (const { name } of [...current.attributes]) if (!isKept(name) && !next.hasAttribute(name)) current.removeAttribute(name);
  for (const { name, value } of next.attributes) if (!isKept(name) && current.getAttribute(name) !== value) current.setAttribute(name, value);
}

/** A control with the focus keeps what the user types or selects. */
function patchValue(current, value, checked) {
  if (current === document.activeElement) return;
  if (["INPUT", "SELECT"].includes(current.nodeName) && current.value !== value) current.value = value;
  if (current.nodeName === "INPUT" && current.checked !== checked) current.checked = checked;
}
