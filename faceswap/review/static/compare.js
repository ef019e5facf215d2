// Two candidates, each a model with settings, on the same frame, and their numbers.

import { get, nameFaces, parted, picture, post, tell, typesIn } from "/static/api.js";
import { compose, decode, follow, inPicture } from "/static/compose.js";

const by = (id) => document.getElementById(id), SIDES = ["left", "right"];
const RANGES = ["identity_strength", "expression_range"];
const POLL = 2000; // milliseconds between two looks for numbers that are being measured
const GOALS = { higher: "more", lower: "less", one: "near 1" };

let facts = null, original = null, share = 0.5, ticket = 0;
const measuring = new Set(); // jobs
const pictures = { left: null, right: null }, shown = { left: "", right: "" };

const view = () => document.querySelector("[name=view]:checked").value;

function candidate(side) {
  const form = by(side), { model, ...look } = Object.fromEntries(new FormData(form));
  for (const name of RANGES) look[name] = Number(look[name]);
  return { model, look: { ...look, match_detail: form.match_detail.checked, to: by("to").value } };
}

function draw() {
  if (!original) return;
  const first = pictures.left ?? original, second = pictures.right ?? original, alone = { first, second, original }[view()];
  by("frame").classList.toggle("scrolls", by("pixels").checked);
  compose(by("picture"), alone ?? first, alone ? null : second, view(), share);
}

// Swap the faces of the frame for the candidates that have changed, one after the other.
async function show() {
  const mine = ++ticket, clip = by("clip").value, frame = Number(by("at").value);
  by("compare").dataset.state = "busy";
  const wanted = Object.fromEntries(SIDES.map((side) => [side, JSON.stringify([clip, frame, candidate(side)])]));
  try {
    const found = await picture(`/conversion/${clip}/frame/${frame}`);
    if (mine !== ticket) return;
    original = found;
    for (const side of SIDES) {
      if (shown[side] === wanted[side]) continue;
      const { image, faces } = await post("/compare/frame", { clip, frame, side: candidate(side) });
      const decoded = await decode(image);
      if (mine !== ticket) return;
      pictures[side] = decoded;
      shown[side] = wanted[side];
      by("told").textContent = faces.length ? "" : "no face in this frame";
      draw();
    }
  } catch (error) {
    if (error.name === "Error") tell(error.message);
    for (const side of SIDES) if (shown[side] !== wanted[side]) pictures[side] = null;
  }
  if (mine !== ticket) return;
  draw();
  by("compare").dataset.state = "shown";
}

// Three digits, without powers of ten.
const digits = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toString() : value.toPrecision(3));
const cell = (score) => (score ? `${digits(score.value)}${score.low === null ? "" : ` (${digits(score.low)} to ${digits(score.high)})`}` : "-");

// Summarise which side the numbers favour.
function verdict(rows) {
  if (JSON.stringify(candidate("left")) === JSON.stringify(candidate("right"))) return "Both sides are the same. Choose another model or another setting for one of them.";
  if (!rows.some((row) => row.left && row.right)) return "";
  const wins = Object.fromEntries(SIDES.map((side) => [side, rows.filter((row) => row.better === side).map((row) => row.name)]));
  const told = SIDES.filter((side) => wins[side].length).map((side) => `${side} is certainly better in ${wins[side].join(", ")}`);
  const [one, other] = SIDES.map((side) => wins[side].length), more = one > other ? "left" : "right";
  const sum = one === other ? "" : `The ${more} is better in ${Math.max(one, other)} measures, the other in ${Math.min(one, other)}. `;
  return told.length ? `${sum}The ${told.join("; the ")}. All other differences may be chance.` : "No difference is certain: look at the frames, or measure more faces.";
}

async function numbers() {
  const found = await post("/compare/numbers", { left: candidate("left"), right: candidate("right") });
  by("rows").replaceChildren(...found.rows.map((row) => {
    const line = document.createElement("tr");
    for (const [name, text] of [["", row.name], ["", GOALS[row.goal]], ["left", cell(row.left)], ["right", cell(row.right)], ["", row.real ? digits(row.real.value) : "-"]]) {
      const made = document.createElement("td");
      made.textContent = text;
      if (name && row.better === name) made.className = "better";
      line.append(made);
    }
    line.firstChild.append(Object.assign(document.createElement("small"), { textContent: row.about }));
    return line;
  }));
  by("verdict").textContent = verdict(found.rows);
  for (const side of SIDES) {
    const told = found[side], title = `${side[0].toUpperCase()}${side.slice(1)}`;
    by(`of-${side}`).textContent = told ? `${title}: ${told.steps} steps, ${told.a} + ${told.b} faces` : `${title}: not measured`;
  }
  by("compare").dataset.measured = SIDES.filter((side) => found[side]).join(" ");
  return SIDES.filter((side) => !found[side]);
}

// Follow the jobs that measure until they have ended.
async function watch() {
  const told = [];
  for (const name of measuring) {
    const job = await get(`/jobs/${name}`);
    if (["running", "waiting"].includes(job.state)) {
      told.push(`${job.title}: ${job.state === "waiting" ? "waits" : parted(job.words) || "begins"}`);
      continue;
    }
    measuring.delete(name);
    if (job.state !== "done") tell(job.words || `measuring was ${job.state}`);
    await numbers();
  }
  by("measuring").hidden = !measuring.size;
  by("measuring").textContent = `${told.join("; ")}. It takes some minutes and goes on if you leave the page; `;
  by("measuring").append(Object.assign(document.createElement("a"), { href: "/jobs", textContent: "stop it in Jobs" }), ".");
  if (measuring.size) setTimeout(watch, POLL);
}

async function people() {
  const found = await get(`/compare/people/${candidate("left").model}`);
  for (const id of ["a", "b"]) if (found[id]) by(id).value = found[id];
}

by("measure")?.addEventListener("click", async () => {
  const asked = new Set();
  for (const side of await numbers()) {
    const chosen = candidate(side), key = JSON.stringify(chosen);
    if (asked.has(key)) continue; // both sides are the same
    asked.add(key);
    const known = await get(`/compare/people/${chosen.model}`);
    const { job } = await post("/compare/measure", { side: chosen, a: known.a ?? by("a").value, b: known.b ?? by("b").value });
    measuring.add(job);
  }
  if (!asked.size) { tell("both sides are measured"); return; }
  watch();
});

// What was chosen stays while the tab is open.
function keep() {
  const values = [...document.querySelectorAll("#compare select, #compare input")].map((one) => (one.type === "checkbox" || one.type === "radio" ? one.checked : one.value));
  sessionStorage.setItem("compare", JSON.stringify({ values, measuring: [...measuring] }));
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem("compare") ?? "null"), fields = [...document.querySelectorAll("#compare select, #compare input")];
  if (kept?.values.length !== fields.length) return false;
  fields.forEach((one, at) => {
    if (one.type === "checkbox" || one.type === "radio") one.checked = kept.values[at];
    else if (one.tagName !== "SELECT" || [...one.options].some(({ value }) => value === kept.values[at])) one.value = kept.values[at];
  });
  for (const output of document.querySelectorAll(".candidate label output")) output.textContent = output.nextElementSibling.value;
  for (const name of kept.measuring) measuring.add(name);
  return true;
}

const VIEWS = { w: "wipe", b: "beside", a: "first", s: "second", d: "difference", z: "original" };
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };

async function open(at) {
  facts = await get(`/compare/clip/${by("clip").value}`);
  by("at").max = facts.frames - 1;
  by("at").value = at ?? Math.floor(facts.frames / 2);
  by("where").textContent = by("at").value;
  await show();
}

function begin() {
  for (const side of SIDES) {
    by(side).addEventListener("input", (event) => {
      if (event.target.type === "range") event.target.previousElementSibling.textContent = event.target.value;
      show();
      numbers();
      if (event.target.name === "model" && side === "left") {
        people();
        nameFaces(event.target, by("to"));
      }
    });
    by(side).addEventListener("submit", (event) => event.preventDefault());
  }
  by("clip").addEventListener("change", () => open());
  by("to").addEventListener("change", () => { show(); numbers(); });
  by("at").addEventListener("input", () => { by("where").textContent = by("at").value; show(); });
  for (const one of document.querySelectorAll("[name=view], #pixels")) one.addEventListener("change", draw);
  follow(by("picture"), (at) => {
    if (view() !== "wipe") return;
    share = inPicture(by("picture"), at);
    draw();
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typesIn(event)) return;
    if (event.key in STEPS && !event.target.matches("input")) {
      by("at").value = Number(by("at").value) + STEPS[event.key];
      by("at").dispatchEvent(new Event("input"));
    } else if (event.key in VIEWS) {
      document.querySelector(`[value=${VIEWS[event.key]}]`).checked = true;
      draw();
    } else if (event.key === "1") {
      by("pixels").checked = !by("pixels").checked;
      draw();
    } else return;
    event.preventDefault();
  });
}

if (by("compare")) {
  begin();
  const isKnown = restore(), at = by("at").value;
  if (!isKnown) await people();
  nameFaces(by("left").elements.model, by("to"));
  await numbers();
  if (measuring.size) watch();
  await open(isKnown ? at : undefined);
  for (const event of ["pagehide", "visibilitychange"]) addEventListener(event, keep);
  document.addEventListener("input", () => setTimeout(keep)); // after the page has taken it
  by("compare").dataset.ready = "true";
}
