// The node at a glance: who it is, whether we hear it, and its figures of now.

import { byId, el, say } from "./dom.js";
import { NOTHING, clock, duration, number, percent, shortId, size, title, whole } from "./words.js";

const REACH = { connecting: "connecting", live: "live", lost: "connection lost, trying again" };

export function showReach({ reach, heard }) {
  const place = byId("connection");
  place.dataset.state = reach.state;
  document.body.dataset.reach = reach.state;
  const since = reach.state === "lost" && heard ? ` (as of ${clock(heard)})` : "";
  say(place, REACH[reach.state] + since);
  say(byId("trouble"), reach.state === "lost" ? reach.why : "");
}

export function showWho(status) {
  say(byId("name"), status.name || shortId(status.node));
  say(byId("mesh"), `${shortId(status.node)} in mesh ${status.mesh}`);
  document.title = `${status.name} · round ${status.round}`;
}

export function showGlance(place, model) {
  place.replaceChildren(
    ...figures(model).map(([name, value, more]) =>
      el("div", { "data-figure": name }, el("dt", {}, name), el("dd", {}, value), el("dd", { class: "more" }, more)),
    ),
  );
}

function figures(model) {
  const { status } = model;
  const found = [
    ["round", whole(status.round), doing(model)],
    ["training loss", number(status.trainer.loss), pace(status.trainer)],
    ["held out", ...heldOut(model.rounds)],
    ["consensus distance", ...distance(status.last_round)],
    ["members", ...members(model)],
    ["sent", size(status.sent_bytes), `${size(status.received_bytes)} received, since the start`],
    ["trainer", status.trainer.state, trainer(status.trainer)],
    ["saved", status.saved_round ? `round ${whole(status.saved_round)}` : "not yet", `${whole(status.mixes)} mixes`],
  ];
  if (status.privacy) found.push(["privacy", ...privacy(status.privacy)]);
  const machine = status.machine && machineOf(status.machine);
  if (machine) found.push(["device", ...machine]);
  return found;
}

function doing({ status, peers }) {
  if (status.phase === "paused" && status.why_paused) return `paused: ${status.why_paused}`;
  const names = new Map(peers.map((peer) => [peer.node, title(peer)]));
  const waits = status.waiting_for.map((node) => names.get(node) ?? shortId(node)).join(", ");
  return status.phase + (waits ? `, waits for ${waits}` : "");
}

function pace(trainer) {
  return trainer.loss === null
    ? "no step yet"
    : `step ${whole(trainer.step)} of this round, ${Number(trainer.steps_per_second.toPrecision(3))} steps/s`;
}

function heldOut(rounds) {
  const row = rounds.findLast((each) => each.evaluation_loss !== null);
  if (!row) return [NOTHING, "not evaluated yet"];
  const loss = `loss ${number(row.evaluation_loss)}`;
  const when = `in round ${whole(row.round)}`;
  return row.evaluation_accuracy === null ? [loss, when] : [percent(row.evaluation_accuracy), `${loss}, ${when}`];
}

function distance(row) {
  if (!row) return [NOTHING, "nothing is mixed yet"];
  if (row.consensus_distance === null) return [NOTHING, `no neighbour mixed in round ${whole(row.round)}`];
  return [number(row.consensus_distance), `norm ${number(row.norm)}, round ${whole(row.round)}`];
}

function members({ status, peers }) {
  const alive = peers.filter((peer) => peer.state === "alive").length;
  const away = peers.length - alive;
  return [whole(alive), `others here${away ? `, ${away} late or gone` : ""}; ${status.degree} neighbours now`];
}

function trainer({ device, rank, parameters, restarts }) {
  const parts = device ? [device, `rank ${rank}`, `${whole(parameters)} parameters`] : [];
  if (restarts) parts.push(`restarted ${restarts} times`);
  return parts.join(", ");
}

function privacy({ spent, epsilon, delta, steps_left }) {
  const left = steps_left ? `${whole(steps_left)} steps left` : "all spent: it trains no more";
  return [`ε ${number(spent)}`, `of ${epsilon} (δ ${delta}), ${left}`];
}

// What the device tells of itself, the most telling first; null if that is nothing.
function machineOf({ gpus, temperature_celsius, power_watts, memory_used_bytes, memory_total_bytes }) {
  const parts = gpus.filter((gpu) => gpu.use !== null).map((gpu) => `${percent(gpu.use)} of ${gpu.name}`);
  if (temperature_celsius !== null) parts.push(`${temperature_celsius.toFixed(0)} °C`);
  if (power_watts !== null) parts.push(`${power_watts.toFixed(1)} W`);
  if (memory_used_bytes !== null) parts.push(`${size(memory_used_bytes)} used`);
  if (memory_total_bytes !== null) parts.push(`of ${size(memory_total_bytes)} memory`);
  return parts.length ? [parts[0], parts.slice(1).join(", ")] : null;
}

export function showFooter(place, status) {
  say(
    place,
    `decaf-node ${status.version}, up ${duration(status.uptime_seconds)}, ${size(status.resident_bytes)} of memory, ` +
      `at ${status.address}. State: ${status.state_folder}`,
  );
}
