// What is wrong, the worst first, with what to do about it.

import { el } from "./dom.js";
import { clock, title } from "./words.js";

let shown = "";

export function showAlerts(place, { alerts, peers }) {
  if (alerts === null) return;
  const wanted = JSON.stringify(alerts);
  if (wanted === shown) return; // else a screen reader would read it again
  shown = wanted;
  place.replaceChildren(...(alerts.length ? alerts.map((alert) => alertOf(alert, peers)) : [allWell()]));
}

function allWell() {
  return el("p", { class: "well" }, "Nothing is wrong.");
}

function alertOf(alert, peers) {
  const about = peers.find((peer) => peer.node === alert.place);
  return el(
    "article",
    { class: "alert", "data-severity": alert.severity },
    el("h2", {}, el("span", { class: "severity" }, alert.severity), ` ${about ? title(about) : alert.place}`),
    el("p", { class: "sentence" }, alert.sentence),
    ...(alert.remedy ? [el("p", { class: "remedy" }, alert.remedy)] : []),
    el("p", { class: "since" }, `since ${clock(alert.since)}, ${alert.id}`),
  );
}
