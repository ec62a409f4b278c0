// How good each model's predictions are, and what the lanes say of drift.

import { byId, cell, head, keyed, keyOf, make, put, relabel, row } from "./dom.js";
import { moment, number, say, seconds } from "./text.js";
import { Spark, drop } from "./charts.js";

const COLUMNS = [["model", false], ["outcomes", true], ["latest", true], ["calibration", true], ["auc", true], ["log_loss", true], ["alone", false], ["drifts", true]];
const DRIFTS = [["time", false], ["lane", true], ["detector", false], ["change", true], ["answer", false], ["model", false]];
const label = (field) => say(`models.${field}`);
const ofDrift = (field) => say(`drifts.${field}`);

export class Models {
  constructor() {
    this.table = byId("models");
    this.drifts = byId("drifts");
    this.sparks = new WeakMap();
    head(this.table, COLUMNS, label);
    head(this.drifts, DRIFTS, ofDrift);
  }

  draw(snapshot, again = false) {
    keyed(this.table.tBodies[0], snapshot.models, (model) => model.model, () => this.create(), (node, model) => this.update(node, model, snapshot.time_ms, again), drop);
    keyed(this.drifts.tBodies[0], snapshot.drifts, (drift) => keyOf(drift.lane, drift.detector, drift.model, drift.time_ms), () => row(DRIFTS, ofDrift), (node, drift) => {
      put(cell(node, "time"), moment(drift.time_ms), drift.time_ms);
      put(cell(node, "lane"), String(drift.lane), drift.lane);
      put(cell(node, "detector"), say(`detector.${drift.detector}`));
      put(cell(node, "change"), `${number(drift.was, 4, 0)} → ${number(drift.now, 4, 0)}`);
      put(cell(node, "answer"), say(`answer.${drift.answer}`));
      put(cell(node, "model"), drift.model);
    });
  }

  create() {
    const node = row(COLUMNS, label);
    const spark = new Spark();
    cell(node, "calibration").append(make("span", { class: "now" }), spark.node);
    this.sparks.set(node, spark);
    return node;
  }

  update(node, model, now_ms, again) {
    put(cell(node, "model"), model.model, model.model);
    put(cell(node, "outcomes"), number(model.outcomes, 0), model.outcomes);
    const age_s = Math.max(0, now_ms - model.newest_ms) / 1000; // of a model that serves nobody, or no lane that lives
    put(cell(node, "latest"), say("models.ago", { age: seconds(age_s) }), age_s);
    const { layer, alone } = model;
    cell(node, "calibration").dataset.value = layer.calibration ?? "";
    const now = layer.calibration === null ? say("models.few") : number(layer.calibration, 3);
    put(cell(node, "calibration").firstChild, now);
    this.sparks.get(node).show(layer.calibration, say("chart.line", { of: model.model, what: label("calibration"), now }), again);
    put(cell(node, "auc"), number(layer.auc, 3), layer.auc);
    put(cell(node, "log_loss"), number(layer.log_loss, 4), layer.log_loss);
    put(cell(node, "alone"), say("models.both", { calibration: number(alone.calibration, 3), auc: number(alone.auc, 3) }));
    put(cell(node, "drifts"), number(layer.drifts, 0), layer.drifts);
  }

  relabel() {
    relabel(this.table, COLUMNS, label);
    relabel(this.drifts, DRIFTS, ofDrift);
  }
}
