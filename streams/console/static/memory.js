// What the browser remembers of choices. One that blocks storage throws at its mere mention: it remembers nothing.

/** What was remembered under `name`; null where nothing was. `area`: localStorage or sessionStorage. */
export function recall(area, name) {
  try {
    return window[area].getItem(name);
  } catch {
    return null;
  }
}

export function remember(area, name, value) {
  try {
    window[area].setItem(name, value);
  } catch { /* it holds until the page is left */ }
}
