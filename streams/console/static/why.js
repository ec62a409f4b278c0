// "Why this ad?": a person's interest and history, what won and what each slot's ad was attended for, what lost and why.

import { byId, cell, head, keyed, make, put, row } from "./dom.js";
import { money, moment, number, percent, say } from "./text.js";

const SLOTS = [["slot", true], ["ad", false], ["campaign", false], ["pctr", true], ["ecpm", true], ["price", true], ["propensity", true], ["earned", false]];
const PAST = [["ad", false], ["kind", false], ["time", false], ["attention", false]];
const LOST = [["place", true], ["ad", false], ["pctr", true], ["bid", true], ["worth", true], ["chance", true], ["why", false]];
const label = (field) => say(`why.${field}`);
const named = (ad) => (ad.title ? `${ad.title} (${ad.ad_id})` : ad.ad_id);

export class Why {
  constructor(ask) {
    this.ask = ask;
    this.told = null;
    this.asked = 0;
    this.chosen = 0; // of the slots told: where rules left one empty, its number is no place in the list
    byId("why-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.look(byId("why-user").value);
    });
  }

  draw(snapshot) {
    keyed(byId("why-people"), snapshot.people, (user) => user, (user) => make("option", { value: user }), () => {});
    const recent = byId("why-recent");
    if (recent.matches(":is(:hover, :focus-within)")) return; // whoever has come to one of them means that one
    keyed(recent, snapshot.people.slice(0, 8), (user) => user, (user) => {
      const button = make("button", { type: "button" }, user);
      button.addEventListener("click", () => { byId("why-user").value = user; this.look(user); });
      return button;
    }, () => {});
  }

  async look(user) {
    const mine = ++this.asked;
    byId("why").setAttribute("aria-busy", "true");
    const told = await this.answer(user);
    if (mine !== this.asked) return; // somebody else was asked for since
    this.told = told;
    this.chosen = 0;
    this.show();
    byId("why").removeAttribute("aria-busy");
  }

  async answer(user) {
    try {
      const response = await this.ask(`why?user=${encodeURIComponent(user)}`);
      if (response.status === 401) return { error: "token", user }; // the page asks for it
      const answer = await response.json();
      return response.ok ? answer : { error: answer.error ?? "unreachable", user };
    } catch {
      return { error: "unreachable", user };
    }
  }

  show() {
    const told = this.told;
    if (!told) return;
    put(byId("why-said"), told.error ? say(`why.error.${told.error}`, { user: told.user }) : say("why.facts", { user: told.user, placement: told.placement_id, arm: told.arm, model: told.model, time: moment(told.time_ms), candidates: told.candidates })); // read out; the tables are not
    if (told.error) {
      byId("why").replaceChildren();
      return;
    }
    byId("why").replaceChildren(
      make("p", { class: "facts", data: { identical: String(told.identical) } }, say(`why.identical.${told.identical}`), ...told.differences.map((each) => make("small", {}, ` ${each}`))),
      make("h3", {}, say("why.slots")), make("p", { class: "hint" }, say("why.from_0")), this.slots(told),
      make("div", { class: "two" },
        make("div", {}, make("h3", {}, say("why.interest")), this.tastes("session", told.session), this.tastes("long", told.long)),
        make("div", {}, make("h3", {}, say("why.history")), make("p", { class: "hint", id: "why-of" }), this.long("why.history", this.past(told)))),
      make("h3", {}, say("why.lost")), make("p", { class: "hint" }, say("why.needed", { worth: money(told.needed_worth_micros) })),
      make("p", { class: "hint", id: "why-lost-by" }, Object.entries(told.lost_by).map(([why, count]) => say("why.lost_by", { count, why: say(`lost.${why}`) })).join(" · ")), this.long("why.lost", this.lost(told)));
    this.attend();
    Object.assign(byId("why").dataset, { user: told.user, placement: told.placement_id });
  }

  table(id, columns, items, key, update) {
    const table = make("table", { id }, make("thead"), make("tbody"));
    head(table, columns, label);
    keyed(table.tBodies[0], items, key, () => row(columns, label), update);
    return table;
  }

  /** A table that scrolls by itself, by keyboard too. */
  long(key, table) {
    return make("div", { class: "long", tabindex: "0", role: "region", "aria-label": say(key) }, table);
  }

  slots(told) {
    return this.table("why-slots", SLOTS, told.slots, (slot) => slot.slot, (node, slot) => {
      const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": say("why.choose", { slot: slot.slot }) }, String(slot.slot));
      button.addEventListener("click", () => { this.chosen = told.slots.indexOf(slot); this.attend(); });
      cell(node, "slot").append(button);
      put(cell(node, "ad"), named(slot.ad), slot.ad.ad_id);
      put(cell(node, "campaign"), slot.campaign_id);
      put(cell(node, "pctr"), percent(slot.pctr, 3), slot.pctr);
      put(cell(node, "ecpm"), money(slot.ecpm_micros), slot.ecpm_micros);
      put(cell(node, "price"), money(slot.price_micros), slot.price_micros);
      put(cell(node, "propensity"), number(slot.propensity, 4), slot.propensity);
      const earned = cell(node, "earned");
      earned.dataset.value = slot.attention.map((each) => `${each.ad.ad_id}=${each.weight}`).join(" ");
      earned.append(...(slot.attention.length ? slot.attention.map((each) => this.weight(each.weight, named(each.ad))) : [say("why.nothing")]));
    });
  }

  weight(share, text) {
    const bar = make("span", { class: "share", "aria-hidden": "true" });
    bar.style.width = `${4 * share}rem`;
    return make("div", {}, bar, `${percent(share, 1)} ${text}`);
  }

  tastes(kind, tastes) {
    const list = make("ul", { data: { horizon: kind } }, ...tastes.map((taste) =>
      make("li", {}, `${say(`why.taste.${taste.kind}`)} ${taste.word} `, make("small", {}, number(taste.likeness, 2)))));
    return make("div", {}, make("h4", {}, say(`why.${kind}`)), tastes.length ? list : make("p", { class: "hint" }, say("why.nothing")));
  }

  past(told) {
    return this.table("why-history", PAST, told.history, (_past, at) => at, (node, past) => {
      put(cell(node, "ad"), named(past.ad), past.ad.ad_id);
      put(cell(node, "kind"), say(`kind.${past.kind}`), past.kind);
      put(cell(node, "time"), moment(1000 * past.time_s), past.time_s);
    });
  }

  lost(told) {
    return this.table("why-lost", LOST, told.lost, (lost) => lost.place, (node, lost) => {
      put(cell(node, "place"), number(lost.place, 0), lost.place);
      put(cell(node, "ad"), named(lost.ad), lost.ad.ad_id);
      put(cell(node, "pctr"), percent(lost.pctr, 3), lost.pctr);
      put(cell(node, "bid"), money(lost.bid_micros), lost.bid_micros);
      put(cell(node, "worth"), money(lost.worth_micros), lost.worth_micros);
      put(cell(node, "chance"), percent(lost.chance, 3), lost.chance);
      put(cell(node, "why"), say(`lost.${lost.why}`), lost.why);
    });
  }

  /** Show what the history did for the slot chosen. */
  attend() {
    const won = this.told.slots[this.chosen];
    put(byId("why-of"), won ? say("why.of", { slot: won.slot, ad: named(won.ad) }) : "");
    [...byId("why-slots").tBodies[0].rows].forEach((node, at) =>
      node.querySelector("button").setAttribute("aria-pressed", String(at === this.chosen)));
    [...byId("why-history").tBodies[0].rows].forEach((node, at) => {
      const share = won?.by_item?.[at];
      cell(node, "attention").replaceChildren(share === undefined ? say("why.unknown") : this.weight(share, ""));
      cell(node, "attention").dataset.value = share ?? "";
    });
  }

  relabel() {
    this.show();
  }
}
