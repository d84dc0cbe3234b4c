// The page put together: events change the model, and what has changed is drawn with the next frame.

import { showAlerts } from "./alerts.js";
import { Charts } from "./charts.js";
import { byId, say } from "./dom.js";
import { follow } from "./feed.js";
import { showFooter, showGlance, showReach, showWho } from "./glance.js";
import { Graph } from "./graph.js";
import { showMembers, showRounds } from "./tables.js";
import { Model } from "./model.js";
import { showTimeline } from "./timeline.js";

const ROWS = 12; // of the table of rounds, and so many more with each press of the button
let rows = ROWS;
let drawing = 0;

const model = new Model(draw);
const graph = new Graph(byId("graph"), byId("graph-detail"));
const charts = new Charts(byId("charts"));

function draw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    showReach(model);
    if (!model.status) return;
    showWho(model.status);
    showAlerts(byId("alerts"), byId("alerts-words"), model);
    showGlance(byId("glance"), model);
    graph.show(model);
    showTimeline(byId("timeline"), model);
    charts.show(model.rounds.slice(-model.wanted));
    showMembers(byId("members"), model);
    showRounds(byId("rounds"), model, rows);
    byId("more").hidden = rows >= model.rounds.length;
    showFooter(byId("footer"), model.status);
  });
}

byId("span").addEventListener("change", (event) => model.want(Number(event.target.value)));
byId("more").addEventListener("click", () => {
  rows += ROWS;
  draw();
});
addEventListener("theme", () => charts.recolour());
setInterval(() => say(byId("timeline-now"), model.now()), 1000);
follow(
  (event) => model.hear(event),
  (state, why) => model.reached(state, why),
);
