// Sparklines and bands, by uPlot (vendor/). Colours are the page's own; a canvas says in words what it shows.

/* global uPlot */
import { make } from "./dom.js";

const POINTS = 180; // as the server keeps (streams/console/lanes.py)
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CALM_EVERY = 5; // seconds between two redraws where motion is not wanted

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const PLAIN = { legend: { show: false }, cursor: { show: false }, axes: [{ show: false }, { show: false }], padding: [2, 2, 2, 2] };

const drawn = new WeakMap(); // plots by the nodes that hold them

/** Ends the charts in a node that leaves the page: each listens to the window, which would keep it for ever. */
export function drop(node) {
  for (const holder of node.querySelectorAll(".spark, .band")) drawn.get(holder).destroy();
}

/** A plot whose canvas is an image: its name, and what stands in its place where none is drawn, tell what it shows. */
function plotted(options, node) {
  const plot = new uPlot({ ...PLAIN, ...options }, options.series.map(() => []), node);
  plot.ctx.canvas.setAttribute("role", "img");
  drawn.set(node, plot);
  return plot;
}

function tell({ ctx: { canvas } }, label) {
  if (canvas.textContent === label) return;
  canvas.textContent = label;
  canvas.setAttribute("aria-label", label);
}

/** A line of the newest `POINTS` values. */
export class Spark {
  constructor() {
    this.node = make("span", { class: "spark" });
    this.values = [];
    this.pushed = 0;
    this.plot = plotted({
      width: 88, height: 28,
      scales: { x: { time: false }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      series: [{}, { stroke: () => colour("--ink"), fill: () => colour("--wash"), width: 1.5, points: { show: false } }],
    }, this.node);
  }

  /** What was before. */
  fill(values) {
    this.values = values.slice(-POINTS);
    this.draw();
  }

  /** A second more; `again`: the same in other words or colours. */
  show(value, label, again) {
    if (!again) {
      this.values.push(value);
      if (this.values.length > POINTS) this.values.shift();
      this.pushed += 1;
    }
    tell(this.plot, label);
    if (again || !calm.matches || this.pushed % CALM_EVERY === 0) this.draw();
  }

  draw() {
    this.plot.setData([this.values.map((_value, at) => at), this.values]);
  }
}

/** An interval over time: the space between its two ends, with a line at 0 where `zero`. */
export class Band {
  constructor(zero = false) {
    this.node = make("div", { class: "band" });
    const edge = { stroke: () => colour("--ink"), width: 1, points: { show: false } };
    this.plot = plotted({
      width: 220, height: 60,
      scales: { x: { time: false }, y: { range: (_plot, low, high) => (zero ? [Math.min(low, 0), Math.max(high, 0)] : [low, high]) } },
      series: [{}, edge, edge, { stroke: () => colour("--text"), width: 1, dash: [3, 3], points: { show: false } }],
      bands: [{ series: [2, 1], fill: () => colour("--wash") }],
    }, this.node);
    this.zero = zero;
  }

  draw(lows, highs, label) {
    tell(this.plot, label);
    const places = lows.map((_low, at) => at);
    this.plot.setData([places, lows, highs, places.map(() => (this.zero ? 0 : null))]);
  }
}
