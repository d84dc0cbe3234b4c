// The mesh as a ring of nodes: who mixes with whom, with the weights of this node's own links.

import { byId, say, svg } from "./dom.js";
import { number, shortId, title, whole } from "./words.js";

const WIDTH = 520;
const ROOMY = { height: 380, x: 175, y: 128, radius: 13 };
const CROWDED = { height: 530, x: 155, y: 145, radius: 8 }; // names go outwards, and the weights are in the table
const CROWD = 10; // so many nodes have room for their words
const DRAWN = 40; // in a larger mesh, this node and its own neighbours only
const LABEL = 14; // characters
const LETTER = 6.4; // so wide is one of a weight
const NEARER = 0.58; // a weight is nearer to the other end, where links are farther apart

export class Graph {
  constructor(place, detail) {
    this.links = svg("g", {});
    this.labels = svg("g", { class: "weights" });
    this.nodes = svg("g", {});
    this.detail = detail;
    this.drawn = new Map();
    this.root = svg("svg", { role: "group" }, this.links, this.labels, this.nodes);
    place.replaceChildren(this.root);
  }

  show(model) {
    const { topology, status, peers, rounds } = model;
    if (!topology) return;
    const known = new Map(peers.map((peer) => [peer.node, peer])).set(status.node, { round: status.round });
    const members = drawnOf(topology).map((member) => ({ ...member, ...newer(known.get(member.node)) }));
    const shape = members.length > CROWD ? CROWDED : ROOMY;
    const at = places(members, topology.node, shape);
    this.root.setAttribute("viewBox", `0 0 ${WIDTH} ${shape.height}`);
    this.showLinks(topology, at, known, shape);
    this.showNodes(members, at, known, topology.node, shape);
    const words = wordsOf(topology, members, status.last_round ?? rounds.at(-1));
    say(byId("graph-words"), words);
    this.root.setAttribute("aria-label", `${words} Each node is described when it has the focus.`);
  }

  showLinks({ links, node }, at, known, shape) {
    const shown = links.filter((link) => at.has(link.one) && at.has(link.other));
    const own = shown.filter((link) => link.one === node || link.other === node);
    this.links.replaceChildren(...shown.filter((link) => !own.includes(link)).concat(own).map((link) => line(link, at, own)));
    const weighted = shape === ROOMY ? own.filter((link) => link.weight !== null) : [];
    this.labels.replaceChildren(...weighted.map((link) => weightOf(link, at, node, known)));
  }

  showNodes(members, at, known, self, shape) {
    for (const [node, drawn] of this.drawn) if (!at.has(node)) drawn.remove();
    this.drawn = new Map([...this.drawn].filter(([node]) => at.has(node)));
    for (const member of members) {
      const words = describe(member, known.get(member.node), self);
      const group = this.drawn.get(member.node) ?? this.addNode(member.node);
      const place = at.get(member.node);
      group.setAttribute("transform", `translate(${place.x} ${place.y})`);
      group.setAttribute("class", `node ${member.state}${member.node === self ? " self" : ""}`);
      group.setAttribute("aria-label", words);
      group.querySelector("circle").setAttribute("r", shape.radius);
      label(group, member, place, shape);
    }
  }

  addNode(node) {
    const group = svg("g", { tabindex: "0", role: "img" }, svg("circle"));
    const tell = () => say(this.detail, group.getAttribute("aria-label"));
    group.addEventListener("focus", tell);
    group.addEventListener("pointerenter", tell);
    this.drawn.set(node, group);
    this.nodes.append(group);
    return group;
  }
}

// Rounds and states are asked for more often than the graph.
function newer({ round, state } = {}) {
  return { ...(round === undefined ? {} : { round }), ...(state === undefined ? {} : { state }) };
}

function drawnOf({ members, links, node }) {
  if (members.length <= DRAWN) return members;
  const near = new Set([node]);
  for (const { one, other } of links) {
    if (one === node) near.add(other);
    if (other === node) near.add(one);
  }
  return members.filter((member) => near.has(member.node)).slice(0, DRAWN);
}

// This node at the top, the others after it in the order of their IDs: the same at each look.
function places(members, self, shape) {
  const order = members.map((member) => member.node).sort();
  const first = Math.max(0, order.indexOf(self));
  const turned = order.slice(first).concat(order.slice(0, first));
  return new Map(
    turned.map((node, index) => {
      const angle = (2 * Math.PI * index) / turned.length - Math.PI / 2;
      const [x, y] = [WIDTH / 2 + shape.x * Math.cos(angle), shape.height / 2 + shape.y * Math.sin(angle)];
      return [node, { x, y, angle }];
    }),
  );
}

// Writes the name at a node: away from the middle, and where there is a crowd along the way out of it.
function label(group, member, { y, angle }, shape) {
  for (const old of group.querySelectorAll("text")) old.remove();
  const name = shortened(title(member));
  if (shape === ROOMY) {
    const rows = y < shape.height / 2 ? [-37, -20] : [31, 48];
    const round = member.state === "alive" ? `round ${whole(member.round)}` : member.state;
    group.append(svg("text", { class: "name", y: rows[0] }, name), svg("text", { class: "round", y: rows[1] }, round));
    return;
  }
  const left = Math.cos(angle) < -1e-9;
  const turn = (angle * 180) / Math.PI + (left ? 180 : 0);
  const attributes = { class: left ? "name end" : "name start", x: left ? -14 : 14, y: 4, transform: `rotate(${turn})` };
  group.append(svg("text", attributes, name));
}

function line(link, at, own) {
  const [from, to] = [at.get(link.one), at.get(link.other)];
  const mine = own.includes(link);
  const width = mine && link.weight !== null ? 1.5 + 8 * link.weight : mine ? 1.5 : 1;
  const kind = `link${mine ? " own" : ""}${link.current ? "" : " idle"}`;
  return svg("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: kind, "stroke-width": width });
}

function weightOf(link, at, self, known) {
  const there = link.one === self ? link.other : link.one;
  const [from, to] = [at.get(self), at.get(there)];
  const distance = known.get(there)?.distance;
  const words = number(link.weight, 2) + (distance === null || distance === undefined ? "" : ` · d ${number(distance, 2)}`);
  const [x, y] = [from.x + NEARER * (to.x - from.x), from.y + NEARER * (to.y - from.y)];
  const width = words.length * LETTER + 8;
  const ground = svg("rect", { x: x - width / 2, y: y - 10, width, height: 20, rx: 4 });
  return svg("g", {}, ground, svg("text", { x, y: y + 4 }, words));
}

function describe(member, peer, self) {
  const parts = [title(member), member.state, `round ${whole(member.round)}`];
  if (member.node === self) parts[1] = "this node";
  if (peer?.neighbour) parts.push("a neighbour");
  if (peer && (peer.weight ?? null) !== null) parts.push(`weight ${number(peer.weight, 2)}`);
  if (peer && (peer.distance ?? null) !== null) parts.push(`distance ${number(peer.distance)}`);
  if (peer && (peer.clip_factor ?? 1) < 1) parts.push(`clipped to ${number(peer.clip_factor, 2)}`);
  return `${parts.join(", ")}. ${shortId(member.node)}.`;
}

function wordsOf(topology, members, row) {
  const chosen = topology.topology === topology.graph ? "" : ` (by ${topology.topology})`;
  const left = topology.members.length - members.length;
  const some = left ? `, ${whole(left)} farther ones not drawn` : "";
  const distance = row && row.consensus_distance !== null ? ` Consensus distance ${number(row.consensus_distance)}.` : "";
  return `Graph: ${topology.graph}${chosen}, ${topology.members.length} nodes, ${whole(topology.link_count)} links${some}.${distance}`;
}

function shortened(name) {
  return name.length > LABEL ? `${name.slice(0, LABEL - 1)}…` : name;
}
