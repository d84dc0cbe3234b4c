// Curves over the rounds, drawn by uPlot. Each says in words what it shows; the numbers are in the table of rounds.

import { colour, el, say } from "./dom.js";
import { number, percent, size, whole } from "./words.js";

const HEIGHT = 190;
const STEPS = [...Array(10).keys()].flatMap((power) => [1, 2, 5].map((part) => part * 10 ** power)); // whole rounds
const KINDS = [
  {
    title: "Loss",
    write: (value) => number(value),
    curves: [
      ["training", "--one", (row) => (row.steps ? row.loss : null)],
      ["held out", "--two", (row) => row.evaluation_loss],
    ],
  },
  {
    title: "Held-out accuracy",
    write: percent,
    curves: [["accuracy", "--two", (row) => row.evaluation_accuracy]],
  },
  {
    title: "Distance",
    write: (value) => number(value),
    curves: [
      ["to the neighbours mixed", "--three", (row) => row.consensus_distance],
      ["cut by the mix", "--one", (row) => row.tail],
    ],
  },
  {
    title: "Bytes a round",
    write: size,
    curves: [
      ["sent", "--one", (row) => row.sent_bytes],
      ["received", "--three", (row) => row.received_bytes],
    ],
  },
];

export class Charts {
  constructor(place) {
    this.charts = KINDS.map((kind) => new Chart(kind));
    place.replaceChildren(...this.charts.map((chart) => chart.figure));
    new ResizeObserver(() => this.charts.forEach((chart) => chart.resize())).observe(place);
  }

  show(rows) {
    for (const chart of this.charts) chart.show(rows);
  }

  recolour() {
    for (const chart of this.charts) chart.rebuild();
  }
}

class Chart {
  constructor(kind) {
    this.kind = kind;
    this.words = el("p", { class: "words" });
    this.canvas = el("div", { class: "canvas", role: "img" });
    this.figure = el("figure", { class: "panel" }, el("figcaption", {}, kind.title), this.words, this.canvas);
    this.data = null;
    this.plot = null;
  }

  show(rows) {
    this.data = [rows.map((row) => row.round), ...this.kind.curves.map(([, , value]) => rows.map(value))];
    const words = wordsOf(this.kind, rows);
    say(this.words, words);
    this.canvas.setAttribute("aria-label", `${this.kind.title}. ${words}`);
    this.canvas.hidden = this.data.slice(1).flat().every((value) => value === null);
    if (this.canvas.hidden) return;
    if (this.plot) this.plot.setData(this.data);
    else this.rebuild();
  }

  rebuild() {
    if (!this.data || this.canvas.hidden) return;
    this.plot?.destroy();
    this.plot = new uPlot(options(this.kind, this.canvas.clientWidth), this.data, this.canvas);
  }

  resize() {
    if (!this.canvas.hidden) this.plot?.setSize({ width: this.canvas.clientWidth, height: HEIGHT });
  }
}

function options({ curves, write }, width) {
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("--line"), width: 1 };
  return {
    width,
    height: HEIGHT,
    cursor: { drag: { x: false, y: false }, sync: { key: "rounds" } },
    scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
    axes: [
      { ...axis, grid: { show: false }, incrs: STEPS, size: 26 },
      { ...axis, grid, size: 58, values: (_, values) => values.map((value) => write(value)) },
    ],
    series: [
      { label: "round", value: (_, value) => whole(value) },
      ...curves.map(([label, shade], index) => ({
        label,
        dash: index ? [6, 4] : [], // seen where two lie on each other, and without colours
        stroke: colour(shade),
        width: 1.8,
        spanGaps: true,
        points: { size: 4 },
        value: (_, value) => write(value),
      })),
    ],
  };
}

function wordsOf({ curves, write }, rows) {
  const told = curves.map(([label, , value]) => {
    const known = rows.filter((row) => value(row) !== null);
    if (!known.length) return `${label}: not known yet`;
    const [first, last] = [known[0], known.at(-1)];
    const from = known.length > 1 ? ` (${write(value(first))} in round ${whole(first.round)})` : "";
    return `${label} ${write(value(last))} in round ${whole(last.round)}${from}`;
  });
  return rows.length ? `${told.join("; ")}.` : "No round is mixed yet.";
}
