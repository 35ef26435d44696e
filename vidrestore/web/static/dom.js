// Elements of the page. Data becomes text or attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 *
 * @param {string} tag Its name.
 * @param {object} properties `text`, `on` ({event: listener}) and attributes; false and null leave one out.
 * @param {...(Node|string|null)} children What it contains.
 * @returns {HTMLElement} The element.
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") node.textContent = value;
    else if (name === "on") listen(node, value);
    else setAttribute(node, name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Add listeners, given as {event: listener}. */
export function listen(node, listeners) {
  for (const [event, listener] of Object.entries(listeners)) node.addEventListener(event, listener);
}

/** Make a picture of the sprite in index.html. It says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Make a button with a text, and a picture before it if one is named. */
export function button(text, pressed, { picture = null, kind = "plain", ...attributes } = {}) {
  return make(
    "button",
    { type: "button", class: `button ${kind}`, on: { click: pressed }, ...attributes },
    picture && icon(picture),
    make("span", { text }),
  );
}

/** Make a button that shows a picture alone; its label is for screen readers and the pointer. */
export function iconButton(picture, label, pressed, attributes = {}) {
  return make(
    "button",
    { type: "button", class: "button icon-only", "aria-label": label, title: label, on: { click: pressed }, ...attributes },
    icon(picture),
  );
}

/** Change which picture a button shows. */
export function setIcon(node, name) {
  setAttribute(node.querySelector("use"), "href", `#icon-${name}`);
}

/**
 * Set an attribute where it differs. null and undefined remove it; true and false are words in attributes of
 * ARIA, elsewhere whether the attribute is there.
 */
export function setAttribute(node, name, value) {
  const isWord = typeof value === "boolean" && name.startsWith("aria-");
  if (value === null || value === undefined || (value === false && !isWord)) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true && !isWord ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Set a text where it differs, so that screen readers hear changes alone. */
export function setText(node, text) {
  const wanted = text ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show or hide an element. */
export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

/** Set the value of a field, unless the user is typing in it. */
export function setValue(field, value) {
  if (document.activeElement !== field && field.value !== String(value)) field.value = value;
}

const keptRows = new WeakMap();

/**
 * Make the children of an element those of a list. Rows stay, with the focus in them, as long as
 * their items do.
 *
 * @param {Element} parent The element; it has no other children.
 * @param {Array} items The items.
 * @param {function} keyOf Gives what identifies an item.
 * @param {function} build Makes the row of an item: {node, update(item, index)}.
 */
export function keepRows(parent, items, keyOf, build) {
  const before = keptRows.get(parent) ?? new Map();
  const rows = new Map();
  items.forEach((item, index) => {
    const key = keyOf(item);
    const row = before.get(key) ?? build(item);
    rows.set(key, row);
    row.update(item, index);
    if (parent.children[index] !== row.node) parent.insertBefore(row.node, parent.children[index] ?? null);
  });
  for (const [key, row] of before) if (!rows.has(key)) row.node.remove();
  keptRows.set(parent, rows);
}

/**
 * Keep the height of an element while its content is on its way, so that nothing below it moves.
 *
 * @param {HTMLElement} node The element.
 * @param {boolean} isKept Whether the height is kept.
 */
export function keepHeight(node, isKept) {
  const isKeptNow = node.style.minHeight !== "";
  if (isKept && !isKeptNow) node.style.minHeight = `${node.offsetHeight}px`;
  else if (!isKept && isKeptNow) node.style.minHeight = "";
}

let idsGiven = 0;

/** Return an id that no other element has. */
export function freshId(word) {
  idsGiven += 1;
  return `${word}-${idsGiven}`;
}
