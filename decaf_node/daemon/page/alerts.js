// What is wrong, the worst first, with what to do about it.

import { el, say } from "./dom.js";
import { clock, title } from "./words.js";

// An alert keeps its element while it lasts, and `words` is said again only when others are there: they are read aloud.
export function showAlerts(place, words, { alerts, peers }) {
  if (alerts === null) return;
  const shown = [...place.children];
  const articles = alerts.map((alert) => shown.find((each) => each.dataset.key === keyOf(alert)) ?? articleOf(alert));
  articles.forEach((article, index) => fill(article, alerts[index], peers));
  const same = articles.length === shown.length && articles.every((article, index) => article === shown[index]);
  if (same && words.textContent) return;
  place.replaceChildren(...articles);
  say(words, alerts.map(wordsOf).join(" ") || "Nothing is wrong.");
  words.className = articles.length ? "unseen" : "well";
}

function keyOf(alert) {
  return `${alert.place} ${alert.id}`;
}

function wordsOf({ severity, sentence, remedy }) {
  return `${severity}: ${sentence} ${remedy}`.trim();
}

function articleOf(alert) {
  return el(
    "article",
    { class: "alert", "data-key": keyOf(alert) },
    el("h2", {}, el("span", { class: "severity" }), el("span", { class: "about" })),
    el("p", { class: "sentence" }),
    el("p", { class: "remedy" }),
    el("p", { class: "since" }),
  );
}

function fill(article, alert, peers) {
  const about = peers.find((peer) => peer.node === alert.place);
  const part = (name) => article.querySelector(`.${name}`);
  article.dataset.severity = alert.severity;
  say(part("severity"), alert.severity);
  say(part("about"), ` ${about ? title(about) : alert.place}`);
  say(part("sentence"), alert.sentence);
  say(part("remedy"), alert.remedy);
  say(part("since"), `since ${clock(alert.since)}, ${alert.id}`);
}
