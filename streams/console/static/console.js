// The console: listens to the server's events, draws each snapshot, and turns red by itself when nothing comes.

import { byId, keyed, keyOf, make, put } from "./dom.js";
import { recall, remember } from "./memory.js";
import { number, preferred, say, seconds, speak } from "./text.js";
import { Campaigns } from "./campaigns.js";
import { Clicks } from "./clicks.js";
import { Lanes } from "./lanes.js";
import { Models } from "./models.js";
import { Refused } from "./refused.js";
import { Why } from "./why.js";

const SILENT_MS = 5000; // five snapshots missed (EVERY_S in serve.py): the present is unknown
const AGAIN_MS = 1000;
const BUFFER_MAX = 16 * 1024 * 1024; // characters; a snapshot has some hundred thousand at the most

const SENDABLE = /^[\x20-\x7e]+$/; // of others a header cannot be made, or cannot everywhere

let token = recall("sessionStorage", "token");
let heard = performance.now();
let latest = null;
let parts = [];
let spoken = false;
let full = false; // whether the server answers, and has no place for this page
let connection = null; // the one that is read now: how it is ended, and when it last brought something

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** GET under `api/` with the token; `signal` ends it. */
export async function ask(path, signal) {
  const sent = token;
  const response = await fetch(`api/${path}`, { headers: headers(), cache: "no-store", signal });
  if (response.status === 401 && sent === token) askForToken(); // not of one that was sent before the token was given
  return response;
}

/** Shows the form; it says so where a token was sent, and takes back the focus that was lost when it went. */
function askForToken() {
  const form = byId("token");
  if (!form.hidden) return;
  form.hidden = false;
  byId("token-refused").hidden = !token;
  if (token && document.activeElement === document.body) byId("token-value").focus();
}

/** One connection, and its end whatever happens. */
async function connect() {
  const end = new AbortController();
  connection = { end, came: performance.now() };
  try {
    await listen(end.signal);
  } finally {
    connection = null;
    end.abort();
  }
}

/** Read events until they end. EventSource could not send the token. */
async function listen(signal) {
  const response = await ask("events", signal).catch((gone) => { full = false; throw gone; });
  full = response.status === 503 && await isFull(response);
  if (!response.ok) throw new Error(`status ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    connection.came = performance.now();
    buffer += value;
    for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
      take(buffer.slice(0, end));
      buffer = buffer.slice(end + 2);
    }
    if (buffer.length > BUFFER_MAX) throw new Error("an event without end");
  }
}

/** Whether it is our server that says no, and not a proxy before it. */
const isFull = (response) => response.json().then((said) => said.error === "full", () => false);

function take(event) {
  const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event) ?? [];
  if (name === "history") parts.forEach((part) => part.history?.(JSON.parse(data)));
  if (name !== "snapshot") return;
  heard = performance.now();
  latest = JSON.parse(data);
  parts.forEach((part) => part.draw(latest));
  judge();
}

/**
 * The page's own judgement: what the server says, and red when it says nothing. A connection that brings nothing is given
 * up for another: of one whose other end is gone, as after a sleep or behind a proxy, nobody is told.
 */
function judge() {
  const silent = performance.now() - heard;
  if (connection && performance.now() - connection.came > SILENT_MS) connection.end.abort();
  const root = document.documentElement;
  const isSilent = silent > SILENT_MS;
  const level = isSilent ? "red" : latest ? (latest.caught_up || latest.level === "red" ? latest.level : "waiting") : "waiting";
  root.toggleAttribute("data-silent", isSilent);
  root.dataset.level = level;
  put(byId("said"), say(!isSilent ? `state.${level}` : full ? "state.full" : "state.silent")); // read out at every change
  put(byId("since"), isSilent ? say("state.since", { seconds: number(Math.floor(silent / 1000), 0) }) : "");
  document.title = `${level === "red" ? "■ " : ""}${say(`title.${level}`)} · salience`;
  if (!latest) return;
  put(byId("facts"), say("facts", {
    group: latest.group, members: latest.members ?? "–", age: seconds(latest.poll_age_s),
    skipped: latest.skipped, malformed: latest.malformed,
  }));
}

const SHAPES = {
  seconds, behind: (value) => number(value, 0), calibration: number, auc: number,
  was: (value) => number(value, 4, 0), now: (value) => number(value, 4, 0), status: (value) => say(`status.${value}`), owner: (value) => value || say("nobody"),
  detector: (value) => say(`detector.${value}`), answer: (value) => say(`answer.${value}`),
  of: (value) => say(`of.${value}`), tone: number,
};

/** Of what an alarm is about, that which tells it from others of its name; the rest changes while it lasts. */
const WHICH = ["partition", "topic", "lane", "detector", "model", "time_ms", "of", "name"];

const Alarms = {
  draw(snapshot) {
    keyed(byId("alarms"), snapshot.alarms, (alarm) => keyOf(alarm.name, ...WHICH.map((field) => alarm.about[field])),
      () => make("li", {}, make("b"), make("span"), make("small")),
      (node, alarm) => {
        const about = Object.fromEntries(
          Object.entries(alarm.about).map(([name, value]) => [name, SHAPES[name] ? SHAPES[name](value) : value]));
        node.dataset.red = String(alarm.red);
        node.dataset.name = alarm.name;
        put(node.children[0], say(alarm.red ? "alarm.red" : "alarm.amber"));
        const more = alarm.more ? ` ${say("alarm.more", { count: alarm.more })}` : "";
        put(node.children[1], say(`alarm.${alarm.name}`, about) + more);
        put(node.children[2], say("alarm.runbook", { name: alarm.name }));
      });
  },
  relabel() {},
};

async function choose(language) {
  if (!(await speak(language))) return;
  spoken = true;
  byId("language").value = language;
  parts.forEach((part) => part.relabel());
  repaint();
  judge();
}

/** Where the dark colours hold; paper is always light. */
const DARK = { auto: byId("dark").media, light: "not all", dark: "screen" };

function dress(chosen) {
  byId("dark").media = DARK[chosen];
  byId("theme").value = chosen;
  repaint();
}

/** All of the latest snapshot again: in other words or colours. */
function repaint() {
  if (latest) parts.forEach((part) => part.draw(latest, true));
}

async function main() {
  dress(recall("localStorage", "theme") ?? "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  byId("theme").addEventListener("change", ({ target: { value } }) => { remember("localStorage", "theme", value); dress(value); });
  byId("language").addEventListener("change", ({ target: { value } }) => { remember("localStorage", "language", value); choose(value); });
  byId("token").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = byId("token-value").value.trim();
    byId("token-wrong").hidden = SENDABLE.test(given);
    byId("token-refused").hidden = true;
    if (!SENDABLE.test(given)) return;
    token = given;
    remember("sessionStorage", "token", token);
    byId("token").hidden = true;
  });
  parts = [Alarms, new Lanes(), new Clicks(), new Campaigns(), new Models(), new Refused(), new Why(ask)];
  setInterval(judge, 500);
  for (;;) {
    try {
      if (!spoken) await choose(preferred());
      await connect();
    } catch { /* said by the silence itself */ }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

main();
