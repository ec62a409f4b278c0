// What could not be read, by where it came from and why.

import { byId, cell, head, keyed, keyOf, put, relabel, row } from "./dom.js";
import { moment, number, say } from "./text.js";

const COLUMNS = [["topic", false], ["error", false], ["count", true], ["recent", true], ["message", false], ["at", false], ["time", false]];
const label = (field) => say(`refused.${field}`);

export class Refused {
  constructor() {
    this.table = byId("refused");
    head(this.table, COLUMNS, label);
  }

  draw(snapshot) {
    keyed(this.table.tBodies[0], snapshot.refused, (kind) => keyOf(kind.topic, kind.stage, kind.error), () => row(COLUMNS, label), (node, kind) => {
      put(cell(node, "topic"), kind.topic, kind.topic);
      put(cell(node, "error"), `${kind.stage}: ${kind.error}`, kind.error);
      put(cell(node, "count"), number(kind.count, 0), kind.count);
      put(cell(node, "recent"), number(kind.recent, 0), kind.recent);
      put(cell(node, "message"), kind.message);
      put(cell(node, "at"), `${kind.partition}:${kind.offset}`);
      put(cell(node, "time"), moment(kind.time_ms), kind.time_ms);
    });
  }

  relabel() {
    relabel(this.table, COLUMNS, label);
  }
}
