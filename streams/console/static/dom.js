// Small helpers. Whatever comes from a topic becomes text, never markup.

/** Characters that turn the words beside them about, in a name as anybody may write it. */
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text with such characters escaped, as on a terminal (streams/cli/screen.py). */
const plain = (text) => text.replace(TURNING, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; `data` and `aria` are objects, `class` a string. */
export function make(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.map((child) => (typeof child === "string" ? plain(child) : child)));
  return node;
}

/** Set a node's text where it changed, and the raw value behind it. */
export function put(node, text, raw) {
  const shown = plain(text);
  if (node.textContent !== shown) node.textContent = shown;
  if (raw !== undefined) node.dataset.value = raw === null ? "" : String(raw);
}

/**
 * One child of `parent` for each item, made once by its key, kept in the items' order; focus and charts stay.
 * `drop` is told each node that leaves, so that it lets go of what would outlive it.
 * Of items with one key each has a child all the same; all but one are made anew.
 */
export function keyed(parent, items, key, create, update, drop = () => {}) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, at) => {
    const name = String(key(item, at));
    let node = known.get(name);
    known.delete(name);
    if (!node) {
      node = create(item);
      node.dataset.key = name;
    }
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
    update(node, item);
  });
  while (parent.children.length > items.length) {
    drop(parent.lastElementChild);
    parent.lastElementChild.remove();
  }
}

/** One key of several parts, of which any may hold any character. */
export const keyOf = (...parts) => JSON.stringify(parts);

/** Fill a table's head; `columns`: [field, whether it is a number]. */
export function head(table, columns, label) {
  const cells = columns.map(([field, number]) =>
    make("th", { scope: "col", class: number ? "number" : "" }, label(field)));
  table.tHead.replaceChildren(make("tr", {}, ...cells));
}

/** A row with a cell for each column, the first its head; cells are found by `data-field`. */
export function row(columns, label) {
  return make("tr", {}, ...columns.map(([field, number], at) =>
    make(at ? "td" : "th", {
      class: number ? "number" : "", data: { field, label: label(field) }, ...(at ? {} : { scope: "row" }),
    })));
}

export const cell = (node, field) => node.querySelector(`[data-field="${field}"]`);

/** Labels again after the language has changed: rows are kept, so theirs must follow. */
export function relabel(table, columns, label) {
  head(table, columns, label);
  for (const [field] of columns)
    for (const node of table.tBodies[0].querySelectorAll(`[data-field="${field}"]`)) node.dataset.label = label(field);
}
