// What campaigns have spent today, beside what the workers' plan of the day would have spent by now.

import { byId, cell, head, keyed, make, put, relabel, row } from "./dom.js";
import { moment, money, number, percent, say } from "./text.js";

const COLUMNS = [["campaign", false], ["impressions", true], ["clicks", true], ["spent", true], ["budget", true], ["pace", false], ["level", true]];
const label = (field) => say(`campaigns.${field}`);

export class Campaigns {
  constructor() {
    this.table = byId("campaigns");
    head(this.table, COLUMNS, label);
  }

  draw({ day }) {
    const { now_ms, elapsed, more } = day;
    put(byId("campaigns-day"), now_ms ? say("campaigns.day", { now: moment(now_ms), elapsed: percent(elapsed, 0), more }) : "");
    keyed(this.table.tBodies[0], day.campaigns, (one) => one.campaign, () => row(COLUMNS, label), (node, one) => this.update(node, one));
  }

  update(node, one) {
    put(cell(node, "campaign"), one.campaign, one.campaign);
    put(cell(node, "impressions"), number(one.impressions, 0), one.impressions);
    put(cell(node, "clicks"), number(one.clicks, 0), one.clicks);
    put(cell(node, "spent"), money(one.spent_micros, 2) + (one.unpriced ? ` ${say("campaigns.unpriced", { count: one.unpriced })}` : ""), one.spent_micros);
    put(cell(node, "level"), one.level ? number(one.level, 3) : "–", one.level);
    put(cell(node, "budget"), one.budget_micros === null ? say("campaigns.unlimited") : money(one.budget_micros, 2), one.budget_micros);
    const pace = cell(node, "pace");
    if (!one.budget_micros) {
      put(pace, "");
      return;
    }
    const share = one.spent_micros / one.budget_micros, plan = one.planned;
    if (!pace.querySelector(".gauge")) {
      pace.replaceChildren(make("div", { class: "gauge", "aria-hidden": "true" }, make("div", { class: "full" }), make("div", { class: "mark" })), make("small"));
    }
    pace.querySelector(".full").style.width = `${Math.min(100, 100 * share)}%`;
    pace.querySelector(".mark").style.left = `${100 * plan}%`;
    const key = share > plan * 1.1 ? "campaigns.ahead" : share < plan * 0.9 ? "campaigns.behind" : "campaigns.even";
    put(pace.querySelector("small"), say(key, { share: percent(share, 1), plan: percent(plan, 1) }));
  }

  relabel() {
    relabel(this.table, COLUMNS, label);
  }
}
