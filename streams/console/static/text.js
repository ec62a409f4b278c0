// Words and numbers in the language chosen. A dictionary is one flat JSON object; {name} stands for a value.

import { recall } from "./memory.js";

const LANGUAGES = ["en", "zh"];
let words = {};
let language = "en";
let numbers = new Map();
let asked = 0;

export const current = () => language;

/** The language asked for in the address, chosen before, or the browser's. */
export function preferred() {
  const asked = new URLSearchParams(location.search).get("lang") ?? recall("localStorage", "language");
  if (LANGUAGES.includes(asked)) return asked;
  return navigator.language.startsWith("zh") ? "zh" : "en";
}

/** Speak the language chosen; false where another was chosen before its words had come, which is spoken instead. */
export async function speak(chosen) {
  const mine = ++asked;
  const response = await fetch(`i18n/${chosen}.json`);
  const told = await response.json();
  if (mine !== asked) return false;
  words = told;
  language = chosen;
  numbers = new Map();
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  for (const node of document.querySelectorAll("[data-i18n]")) node.textContent = say(node.dataset.i18n);
  return true;
}

/** The sentence of `key`; one that is missing says its key. */
export function say(key, about = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => {
    const value = about[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : String(value);
  });
}

/** A number with `digits` behind the point, so that those of a column stand below each other, or with `least` at least;
 *  without `digits` with two at most, as in sentences. A dash where there is no number. */
export function number(value, digits, least = digits ?? 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const key = `${digits} ${least}`;
  if (!numbers.has(key)) {
    numbers.set(key, new Intl.NumberFormat(language, { minimumFractionDigits: least, maximumFractionDigits: digits ?? 2 }));
  }
  return numbers.get(key).format(value);
}

export const percent = (share, digits = 2) => (share === null || share === undefined ? "–" : `${number(100 * share, digits)} %`);

export const money = (micros, digits = 4) => (micros === null || micros === undefined ? "–" : number(micros / 1e6, digits));

/** Seconds: 0.4 s, 3 min 05, 2 h 05, 12 d. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 60) return `${number(Math.round(10 * value) / 10)} s`;
  const minutes = Math.floor(value / 60);
  const two = (part) => String(part).padStart(2, "0");
  if (minutes < 60) return `${minutes} min ${two(Math.floor(value % 60))}`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)}`;
  return `${number(Math.floor(minutes / 1440), 0)} d`;
}

export const milliseconds = (value) => (value === null || value === undefined ? "–" : value < 1000 ? `${number(value, 0)} ms` : seconds(value / 1000));

export const moment = (ms) => (ms ? new Date(ms).toLocaleString(language === "zh" ? "zh-CN" : "en-GB", { timeZone: "UTC" }) + " UTC" : "–");
