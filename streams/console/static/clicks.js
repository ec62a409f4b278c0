// Click rates by arm with their intervals, and the experiments that the referee reports.

import { byId, cell, head, keyed, keyOf, make, put, relabel, row } from "./dom.js";
import { moment, number, percent, say } from "./text.js";
import { Band, drop } from "./charts.js";

const ARMS = [["arm", false], ["impressions", true], ["clicks", true], ["rate", true], ["interval", true], ["narrowing", false]];
const TRIAL = [["arm", false], ["users", true], ["metric", true], ["difference", true], ["narrowing", false]];
const label = (field) => say(`arms.${field}`);
const ENGINE = "engine"; // an outcome does not tell experiments' arms apart, as placements do (scoring/policies.py)
const named = ({ arm }) => (arm === ENGINE ? say("arms.engine") : arm);

/** What an experiment shows; a referee of before has told the sentence alone. */
function shows({ finding, verdict }) {
  if (!finding) return verdict;
  const by = finding.relative ? percent(finding.by, 1) : number(finding.by, 4, 0);
  const reason = finding.reason || say("finding.no_reason");
  const base = finding.code === "one_decides" ? say(`base.${finding.metric}`) : "";
  return say(`finding.${finding.code}`, { ...finding, base, arms: finding.arms.join(", "), metric: say(`metric.${finding.metric}`), by, reason });
}

/** What the metric is called that a report is of; of what was stopped long ago value is a user's, not a user and day's. */
function called({ primary, value_per: per }) {
  return say(primary === "revenue_micros" && per === "user" ? "metric.revenue_micros_a_user" : `metric.${primary}`);
}

export class Clicks {
  constructor() {
    this.arms = byId("arms");
    this.bands = new WeakMap();
    head(this.arms, ARMS, label);
  }

  draw(snapshot) {
    keyed(this.arms.tBodies[0], snapshot.arms, (arm) => arm.arm, () => this.create(ARMS), (node, arm) => this.updateArm(node, arm), drop);
    keyed(byId("experiments"), snapshot.experiments, ({ report }) => keyOf(report.experiment, report.number), () => this.createTrial(), (node, trial) => this.updateTrial(node, trial), drop);
  }

  create(columns, zero = false) {
    const node = row(columns, label);
    const band = new Band(zero);
    cell(node, "narrowing").append(band.node);
    this.bands.set(node, band);
    return node;
  }

  updateArm(node, arm) {
    put(cell(node, "arm"), named(arm), arm.arm);
    put(cell(node, "impressions"), number(arm.impressions, 0), arm.impressions);
    put(cell(node, "clicks"), number(arm.clicks, 0), arm.clicks);
    put(cell(node, "rate"), percent(arm.rate), arm.rate);
    const interval = say("interval", { low: percent(arm.low), high: percent(arm.high) });
    put(cell(node, "interval"), interval, `${arm.low} ${arm.high}`);
    this.bands.get(node).draw(arm.lows, arm.highs, say("chart.band", { what: named(arm), interval }));
  }

  createTrial() {
    const table = make("table", {}, make("thead"), make("tbody"));
    head(table, TRIAL, label);
    return make("article", {}, make("h4"), make("p"), table);
  }

  updateTrial(node, { report, silent, bands }) {
    const [title, verdict, table] = node.children;
    put(title, say(silent ? "experiments.silent" : "experiments.one", { name: report.experiment, status: say(`experiments.${report.status}`), time: moment(report.time_ms) }));
    const found = report.last_finding;
    put(verdict, found ? say("finding.at_last", { stop: shows(report), found: shows({ finding: found }) }) : shows(report));
    keyed(table.tBodies[0], report.arms, (arm) => arm.arm, () => this.create(TRIAL, true), (line, arm) => {
      put(cell(line, "arm"), arm.arm, arm.arm);
      put(cell(line, "users"), number(arm.users, 0), arm.users);
      put(cell(line, "metric"), `${called(report)}: ${number(arm.metrics[report.primary], 4, 0)}`, arm.metrics[report.primary]);
      const against = arm.against_first[report.primary];
      const none = say(arm === report.arms[0] ? "experiments.first" : "experiments.few");
      const interval = against ? say("interval", { low: number(against.low, 4, 0), high: number(against.high, 4, 0) }) : none;
      put(cell(line, "difference"), against ? `${number(against.value, 4, 0)} (${interval})` : none, against?.value ?? null);
      const band = bands.find((each) => each.arm === arm.arm);
      this.bands.get(line).node.hidden = !band?.lows.length;
      if (band?.lows.length) this.bands.get(line).draw(band.lows, band.highs, say("chart.band", { what: `${report.experiment}, ${arm.arm}`, interval }));
    }, drop);
  }

  relabel() {
    relabel(this.arms, ARMS, label);
    for (const table of byId("experiments").querySelectorAll("table")) relabel(table, TRIAL, label);
  }
}
