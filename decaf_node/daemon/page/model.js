// All that the page knows, from events and from what it asks. Values are as the node tells them.

import { duration, whole } from "./words.js";

const ROUNDS_A_PAGE = 500;
const ROUNDS_KEPT = 5000;
const ASK_MS = 2000; // not more often than this
const ANSWER_MS = 15000;

export class Model {
  constructor(changed) {
    this.status = null;
    this.peers = [];
    this.topology = null;
    this.alerts = null;
    this.rounds = []; // the oldest first
    this.phase = null; // when it began: {phase, round, time}
    this.wanted = 200;
    this.reach = { state: "connecting", why: "" };
    this.heard = 0; // when the last event came
    this.changed = changed;
    this.instance = "";
    this.asking = 0;
    this.moved = true; // the mesh, since we asked for its graph
    this.partial = false; // rounds were asked for in vain
  }

  reached(state, why) {
    if (state === this.reach.state && (why === this.reach.why || why === "")) return;
    this.reach = { state, why };
    this.changed();
  }

  // What the node does now, in words.
  now() {
    if (!this.status) return "";
    const { round, phase } = this.status;
    const known = this.phase?.phase === phase && this.phase.round === round; // else it is of an earlier one
    const since = known ? `, for ${duration(Math.max(0, Date.now() / 1000 - this.phase.time))}` : "";
    return `Now: round ${whole(round)}, ${phase}${since}.`;
  }

  hear(event) {
    this.heard = Date.now() / 1000;
    switch (event.event) {
      case "state":
        this.begin(event);
        break;
      case "round":
        this.keep([event.round]);
        break;
      case "phase":
        this.phase = { ...event.phase, time: event.time };
        if (this.status) Object.assign(this.status, event.phase, { waiting_for: [] }); // till it is asked
        break;
      case "peer":
        this.peers = this.peers.filter((peer) => peer.node !== event.peer.node).concat(event.peer);
        break;
    }
    this.moved ||= event.event === "state" || event.event === "peer";
    this.askSoon();
    this.changed();
  }

  begin(event) {
    if (event.instance !== this.instance) this.forget();
    this.instance = event.instance;
    this.status = event.state.status;
    this.peers = event.state.peers;
    this.askRounds();
  }

  // A node that has started again has lost the rounds that it had not saved.
  forget() {
    this.rounds = [];
    this.phase = null;
  }

  want(rounds) {
    this.wanted = rounds;
    this.askRounds();
    this.changed();
  }

  keep(rows) {
    const known = new Map(this.rounds.map((row) => [row.round, row]));
    for (const row of rows) known.set(row.round, row);
    this.rounds = [...known.values()].sort((one, other) => one.round - other.round).slice(-ROUNDS_KEPT);
  }

  askSoon() {
    this.asking ||= setTimeout(async () => {
      await this.ask();
      this.asking = 0;
    }, ASK_MS / 4);
  }

  async ask() {
    if (this.partial) this.askRounds();
    const moved = this.moved;
    this.moved = false;
    const paths = ["/status", "/peers", "/alerts", ...(moved ? ["/topology"] : [])];
    const [status, peers, alerts, topology] = await Promise.all(paths.map(get));
    if (status) this.status = status;
    if (peers) this.peers = peers.peers;
    if (topology) this.topology = topology;
    else this.moved ||= moved;
    if (alerts) this.alerts = alerts.alerts;
    this.changed();
    await new Promise((done) => setTimeout(done, ASK_MS));
  }

  async askRounds() {
    this.partial = false;
    let before = 0;
    for (let left = this.wanted; left > 0; left -= ROUNDS_A_PAGE) {
      const page = await get(`/rounds?before=${before}&limit=${Math.min(left, ROUNDS_A_PAGE)}`);
      this.partial ||= !page;
      if (!page?.rounds.length) break;
      this.keep(page.rounds);
      before = page.rounds.at(-1).round;
      this.changed();
    }
  }
}

// Returns what the node says, or null: the feed says that the connection is lost.
async function get(path) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}
