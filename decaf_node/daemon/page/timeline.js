// The last rounds on the clock, a line each: training, exchanging (while the next round trains already), mixing.

import { svg } from "./dom.js";
import { clock, seconds } from "./words.js";

const ROUNDS = 17;
const LINE = 22;
const LEFT = 13; // per cent of the width, for the number of the round
const TICKS = [0, 0.5, 1];
const THINNEST = 0.4; // per cent

export function showTimeline(place, { rounds }) {
  const rows = rounds.slice(-ROUNDS).map(partsOf);
  if (!rows.length) {
    place.replaceChildren("No round is mixed yet.");
    return;
  }
  const from = Math.min(...rows.map((row) => row.parts[0].from));
  const to = Math.max(...rows.map((row) => row.end), from + 1e-3);
  const x = (time) => LEFT + ((100 - LEFT) * (time - from)) / (to - from);
  const height = ROUNDS * LINE + 20;
  const drawn = svg("svg", { width: "100%", height, role: "img", "aria-label": wordsOf(rows) });
  for (const tick of TICKS) drawn.append(...tickOf(from + tick * (to - from), x, tick, height));
  rows.forEach((row, index) => drawn.append(lineOf(row, index * LINE, x)));
  place.replaceChildren(drawn);
}

function partsOf(row) {
  const lengths = [
    ["train", row.train_seconds],
    ["exchange", row.exchange_seconds],
    ["mix", row.mix_seconds],
  ];
  let from = row.time - lengths.reduce((sum, [, length]) => sum + length, 0);
  const parts = lengths.map(([phase, length]) => {
    const part = { phase, from, length };
    from += length;
    return part;
  });
  return { round: row.round, parts, end: row.time, edges: row.edges.length };
}

function lineOf(row, y, x) {
  const line = svg("g", {}, svg("text", { x: 0, y: y + 14, class: "tick" }, row.round));
  const told = row.parts.map((part) => `${part.phase} ${seconds(part.length)}`).join(", ");
  line.append(svg("title", {}, `Round ${row.round}: ${told}; ${row.edges} edges`));
  for (const { phase, from, length } of row.parts) {
    const left = Math.min(x(from), 100 - THINNEST);
    const width = Math.max(x(from + length) - left, length > 0 ? THINNEST : 0);
    line.append(svg("rect", { x: `${left}%`, y: y + 3, width: `${width}%`, height: LINE - 8, class: `phase ${phase}` }));
  }
  return line;
}

function tickOf(time, x, part, height) {
  const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
  return [
    svg("line", { x1: `${x(time)}%`, x2: `${x(time)}%`, y1: 0, y2: height - 18, class: "grid" }),
    svg("text", { x: `${x(time)}%`, y: height - 4, class: "tick", "text-anchor": anchor }, clock(time)),
  ];
}

function wordsOf(rows) {
  const mean = (phase) =>
    rows.reduce((sum, row) => sum + row.parts.find((part) => part.phase === phase).length, 0) / rows.length;
  return (
    `Rounds ${rows[0].round} to ${rows.at(-1).round}, on average ${seconds(mean("train"))} of training, ` +
    `${seconds(mean("exchange"))} of exchange, ${seconds(mean("mix"))} of mixing. The table of rounds has them all.`
  );
}
