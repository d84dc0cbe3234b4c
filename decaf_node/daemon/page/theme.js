// Light or dark: as the system says, until somebody chooses.

import { byId, say } from "./dom.js";

const CHOICES = ["system", "light", "dark"];
const KEY = "decaf-node-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
let choice = CHOICES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system";

function apply() {
  const shown = choice === "system" ? (dark.matches ? "dark" : "light") : choice;
  document.documentElement.dataset.theme = shown;
  say(byId("theme"), `Theme: ${choice}`);
  dispatchEvent(new Event("theme"));
}

byId("theme").addEventListener("click", () => {
  choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
  localStorage.setItem(KEY, choice);
  apply();
});
dark.addEventListener("change", apply);
apply();
