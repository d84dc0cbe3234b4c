// Members and rounds as tables.

import { el } from "./dom.js";
import { NOTHING, clock, number, percent, seconds, shortId, size, title, whole } from "./words.js";

const ORDER = { alive: 0, late: 1, gone: 2 };
const MEMBERS = [
  ["name", (peer) => title(peer)],
  ["node", (peer) => shortId(peer.node)],
  ["state", (peer) => peer.state + (peer.neighbour ? ", neighbour" : "")],
  ["round", (peer) => whole(peer.round)],
  ["heard", (peer) => (peer.heard_seconds === null ? "never" : `${seconds(peer.heard_seconds)} ago`)],
  ["weight", (peer) => number(peer.weight, 2)],
  ["distance", (peer) => number(peer.distance)],
  ["clip", (peer) => number(peer.clip_factor, 2)],
  ["mixes", (peer) => whole(peer.mixes)],
  ["loss", (peer) => number(peer.loss)],
  ["address", (peer) => peer.addresses[0] ?? NOTHING],
];
const ROUNDS = [
  ["round", (row) => whole(row.round)],
  ["mixed at", (row) => clock(row.time)],
  ["loss", (row) => (row.steps ? number(row.loss) : NOTHING)],
  ["held-out loss", (row) => number(row.evaluation_loss)],
  ["accuracy", (row) => percent(row.evaluation_accuracy)],
  ["edges", (row) => whole(row.edges.length)],
  ["distance", (row) => number(row.consensus_distance)],
  ["cut", (row) => number(row.tail)],
  ["sent", (row) => size(row.sent_bytes)],
  ["received", (row) => size(row.received_bytes)],
  ["train", (row) => seconds(row.train_seconds)],
  ["exchange", (row) => seconds(row.exchange_seconds)],
  ["mix", (row) => seconds(row.mix_seconds)],
  ["saved", (row, status) => (row.saved || row.round <= status.saved_round ? "yes" : "not yet")], // saving is no event
];
const LEFT = new Set(["name", "node", "state", "address"]);

export function showMembers(place, { peers }) {
  const sorted = [...peers].sort((one, other) => ORDER[one.state] - ORDER[other.state] || (one.node < other.node ? -1 : 1));
  table(place, MEMBERS, sorted, (peer) => peer.node, "No other node has been seen yet.");
}

export function showRounds(place, { rounds, status }, limit) {
  const newest = rounds.slice(-limit).reverse();
  const columns = ROUNDS.map(([name, value]) => [name, (row) => value(row, status)]);
  table(place, columns, newest, (row) => row.round, "No round is mixed yet.");
}

function table(place, columns, rows, key, nothing) {
  const head = el("tr", {}, ...columns.map(([name]) => el("th", { scope: "col", ...side(name) }, name)));
  const body = rows.map((row) => el("tr", { "data-key": key(row) }, ...columns.map((column, index) => cell(column, row, index))));
  if (!body.length) body.push(el("tr", {}, el("td", { colspan: columns.length, class: "left" }, nothing)));
  place.replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
}

function cell([name, value], row, index) {
  const attributes = { "data-column": name, ...side(name) };
  return index === 0 ? el("th", { scope: "row", ...attributes }, value(row)) : el("td", attributes, value(row));
}

function side(name) {
  return LEFT.has(name) ? { class: "left" } : {};
}
