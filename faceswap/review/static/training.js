// A training: its curves as they come, advice, and two previews with a wipe between them.

import { get, parted, post } from "/static/api.js";
import { draw } from "/static/chart.js";

const NOTHING = "it has just begun: the first numbers and the first preview follow within two minutes";
const by = (id) => document.getElementById(id), home = `/training/${by("training").dataset.id}`;
const EVERY = 3000; // milliseconds between two looks at the numbers
let known = [];

function pick(names, series) {
  return Object.fromEntries(names.filter((name) => name in series).map((name) => [name, series[name]]));
}

function list(select, steps, chosen) {
  select.replaceChildren(...steps.map((step) => new Option(step, step, false, step === chosen)));
}

function previews(steps) {
  by("previews").hidden = !steps.length;
  if (String(steps) === String(known)) return;
  const wasNewest = !known.length || Number(by("after").value) === known.at(-1);
  const before = Number(by("before").value) || steps[0], after = wasNewest ? steps.at(-1) : Number(by("after").value);
  known = steps;
  list(by("before"), steps, before);
  list(by("after"), steps, after);
  pictures();
}

function pictures() {
  by("left").src = `${home}/preview/${by("before").value}`;
  by("right").src = `${home}/preview/${by("after").value}`;
}

function wipe() {
  by("left").style.clipPath = `inset(0 ${100 - by("line").value}% 0 0)`;
  by("wipe").style.setProperty("--at", `${by("line").value}%`);
}

function follow(job) {
  by("job").hidden = !job;
  if (!job) return;
  by("job").dataset.id = job.id;
  const bar = by("job").querySelector("progress");
  if (job.done === null) bar.removeAttribute("value");
  else bar.value = job.done;
  by("job").querySelector("span").textContent = job.state === "waiting" ? "waits until another training is done" : parted(job.words);
}

function told(list, texts) {
  list.replaceChildren(...texts.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

async function look() {
  const found = await get(`${home}/progress`);
  by("state").textContent = found.step ? `step ${found.step}, ${found.minutes} minutes${found.running ? ", running" : ""}` : NOTHING;
  draw(by("loss"), by("loss-legend"), pick(["loss_a", "loss_b"], found.series), found.names, true, {});
  draw(by("scores"), by("scores-legend"), pick(["ssim_a", "ssim_b", "sharp_a", "sharp_b"], found.series), found.names, false, found.margins);
  follow(found.job);
  by("more").hidden = Boolean(found.job || found.running);
  told(by("advice"), found.advice);
  told(by("warnings"), found.warnings);
  previews(found.previews);
  by("training").dataset.ready = "true";
}

by("stop").addEventListener("click", async () => {
  by("stop").disabled = true;
  await post(`/jobs/${by("job").dataset.id}`, { action: "stop" });
  by("stop").disabled = false;
});
by("more").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { minutes } = Object.fromEntries(new FormData(event.target));
  await post(home, { minutes: minutes ? Number(minutes) : null });
  await look();
});
by("before").addEventListener("change", pictures);
by("after").addEventListener("change", pictures);
by("line").addEventListener("input", wipe);
wipe();
await look();
setInterval(() => { if (!document.hidden) look(); }, EVERY);
