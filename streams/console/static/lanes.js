// A row for each lane: how far behind, how fast, how late.

import { byId, cell, head, keyed, make, put, relabel, row } from "./dom.js";
import { milliseconds, number, say, seconds } from "./text.js";
import { Spark, drop } from "./charts.js";

const COLUMNS = [
  ["lane", false], ["status", false], ["owner", false], ["behind", true], ["time_lag_s", true], ["consumed_per_s", true],
  ["placements_per_s", true], ["p99_ms", true], ["consumed", true], ["placements", true],
];
const DRAWN = ["time_lag_s", "consumed_per_s", "placements_per_s", "p99_ms"];
const label = (field) => say(`lanes.${field}`);

export class Lanes {
  constructor() {
    this.table = byId("lanes");
    this.sparks = new WeakMap();
    this.before = {};
    head(this.table, COLUMNS, label);
  }

  history(lanes) {
    this.before = lanes;
    for (const node of this.table.tBodies[0].rows) this.fill(node);
  }

  draw(snapshot, again = false) {
    keyed(this.table.tBodies[0], snapshot.lanes, (lane) => lane.lane, () => this.create(), (node, lane) => this.update(node, lane, snapshot, again), drop);
    put(byId("lanes-hidden"), snapshot.lanes_hidden ? say("lanes.hidden", { count: snapshot.lanes_hidden }) : "");
  }

  create() {
    const node = row(COLUMNS, label);
    const sparks = {};
    for (const field of DRAWN) {
      sparks[field] = new Spark();
      cell(node, field).append(make("span", { class: "now" }), sparks[field].node);
    }
    this.sparks.set(node, sparks);
    return node;
  }

  fill(node) {
    const before = this.before[node.dataset.key];
    if (!before) return;
    for (const [field, spark] of Object.entries(this.sparks.get(node))) spark.fill(before[field]);
    delete this.before[node.dataset.key];
  }

  update(node, lane, { members }, again) {
    this.fill(node);
    put(cell(node, "lane"), String(lane.lane), lane.lane);
    const status = cell(node, "status");
    if (!status.firstChild) status.append(make("span", { class: "status" }));
    status.firstChild.dataset.status = lane.status;
    put(status.firstChild, `${lane.status} · ${say(`status.${lane.status}`)}`);
    put(cell(node, "behind"), number(lane.behind, 0), lane.behind);
    const now = {
      time_lag_s: `${lane.time_lag_at_least ? "> " : ""}${seconds(lane.time_lag_s)}`,
      consumed_per_s: say("lanes.flow", { consumed: number(lane.consumed_per_s, 1), produced: number(lane.produced_per_s, 1) }),
      placements_per_s: number(lane.placements_per_s, 1),
      p99_ms: say("lanes.latency", { p50: milliseconds(lane.p50_ms), p99: milliseconds(lane.p99_ms) }),
    };
    for (const field of DRAWN) {
      const at = cell(node, field);
      at.dataset.value = lane[field] ?? "";
      put(at.firstChild, now[field]);
      const told = say("chart.line", { of: say("lanes.one", { lane: lane.lane }), what: label(field), now: now[field] });
      this.sparks.get(node)[field].show(lane[field], told, again);
    }
    cell(node, "p99_ms").dataset.p50 = lane.p50_ms ?? "";
    put(cell(node, "consumed"), `${number(lane.consumed, 0)} / ${number(lane.end, 0)}`, lane.consumed);
    cell(node, "consumed").dataset.end = lane.end;
    put(cell(node, "placements"), number(lane.placements, 0), lane.placements);
    put(cell(node, "owner"), lane.owner ?? (members === null ? "–" : say("nobody")), lane.owner); // a broker may not tell
  }

  relabel() {
    relabel(this.table, COLUMNS, label);
  }
}
