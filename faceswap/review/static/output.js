// A finished conversion: frames of the output and of the original, what the report says, and marks.

import { get, picture, post, tell, typesIn } from "/static/api.js";
import { compose, follow, inPicture } from "/static/compose.js";

const by = (id) => document.getElementById(id), home = `/review/${by("screen").dataset.id}`;
const AHEAD = 3; // frames that are loaded before they are needed
const KEPT = 40; // pictures of each side that are kept
const STATES = { swapped: "--good", partly: "--warm", "not swapped": "--bad", "no face": "--muted" };

let facts = null, place = 0, marks = new Set(), wanted = 0;
const pictures = { before: new Map(), after: new Map() };

const view = () => document.querySelector("[name=view]:checked").value;
const color = (name) => getComputedStyle(document.body).getPropertyValue(name);

// Load a picture once; the newest ones are kept.
function load(side, at) {
  const kept = pictures[side];
  if (!kept.has(at)) {
    const loading = picture(`${home}/${side}/${at}`);
    loading.catch(() => kept.delete(at));
    kept.set(at, loading);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(at);
}

const sides = () => (facts.hasSource ? { after: ["after"], before: ["before"] }[view()] ?? ["before", "after"] : ["after"]);

async function show() {
  const ticket = ++wanted, at = place;
  describe();
  lanes();
  try {
    const [first, second] = await Promise.all(sides().map((side) => load(side, at)));
    if (ticket === wanted) {
      draw(first, second);
      by("screen").dataset.shown = `${at} ${view()}`;
    }
  } catch (error) {
    tell(error.message);
  }
  for (let step = 1; step <= AHEAD && ticket === wanted; step++) {
    if (at + step < facts.frames.length) for (const side of sides()) load(side, at + step).catch(() => {});
  }
}

function draw(first, second) {
  by("frame").classList.toggle("scrolls", by("pixels").checked);
  compose(by("picture"), first, second, view(), by("balance").value / 100);
}

const troubleAt = (at) => facts.troubles.find(({ first, last }) => first <= at && at <= last);

const counted = (number) => (number === 1 ? "1 frame" : `${number} frames`);

function describe() {
  const name = facts.frames[place], fates = facts.fates[place], trouble = troubleAt(place);
  by("where").textContent = `${typeof name === "number" ? `frame ${name}` : name}, ${facts.times[place].toFixed(2)} s, ${place + 1} of ${facts.frames.length}`;
  by("sides").textContent = facts.hasSource
    ? { wipe: "left: original, right: output", beside: "left: original, right: output", difference: "difference, four times as strong" }[view()] ?? ""
    : "the original is not in this folder";
  by("kind").textContent = [trouble?.kind, fates.join(", ")].filter(Boolean).join(": ") || "no face";
  by("mark").firstChild.textContent = marks.has(place) ? "Unmark " : "Mark ";
  by("markrun").disabled = !trouble;
  by("again").disabled = !marks.size || !facts.hasSource;
  by("again").textContent = marks.size ? `Render ${counted(marks.size)} again` : "Render marked frames again";
  by("clear").disabled = !marks.size;
  const slider = by("lanes");
  slider.setAttribute("aria-valuenow", place);
  slider.setAttribute("aria-valuetext", by("where").textContent);
}

// Faces, troubles and marks over time; a column of several frames shows the least fortunate one.
function lanes() {
  const canvas = by("lanes"), context = canvas.getContext("2d"), { width } = canvas, count = facts.frames.length;
  const x = (at) => Math.floor(at * width / count), wide = (first, last) => Math.max(x(last + 1) - x(first), 3);
  const order = Object.keys(STATES);
  context.clearRect(0, 0, width, canvas.height);
  for (let column = 0, at = 0; at < count; column++) {
    const end = Math.max(Math.floor((column + 1) * count / Math.min(count, width)), at + 1);
    const worst = facts.states.slice(at, end).sort((one, other) => order.indexOf(other) - order.indexOf(one))[0];
    context.fillStyle = color(STATES[worst]);
    context.fillRect(x(at), 0, Math.max(x(end) - x(at), 1), 40);
    at = end;
  }
  for (const { first, last, serious } of [...facts.troubles].reverse()) {
    context.fillStyle = color(serious ? "--bad" : "--warm");
    context.fillRect(x(first), 48, wide(first, last), 34);
  }
  context.fillStyle = color("--accent");
  for (const at of marks) context.fillRect(x(at), 90, wide(at, at), 34);
  context.fillStyle = color("--text");
  context.fillRect(x(place) + Math.floor(width / count / 2) - 2, 0, 4, canvas.height);
}

function go(at) {
  place = Math.min(Math.max(at, 0), facts.frames.length - 1);
  show();
}

// Go to the next run of frames that may look wrong, by its place in the film.
function problem(direction) {
  const starts = facts.troubles.map(({ first }) => first).sort((one, other) => one - other);
  const found = direction > 0 ? starts.find((first) => first > place) : starts.findLast((first) => first < place);
  if (found === undefined) tell(direction > 0 ? "there is no problem after this frame" : "there is no problem before this frame");
  else go(found);
}

let writing = Promise.resolve();

// Mark frames at once, and write the marks one after the other, so that fast keys lose none.
function write(next) {
  marks = new Set(next);
  describe();
  lanes();
  const places = [...marks].sort((one, other) => one - other);
  writing = writing.catch(() => {}).then(() => post(`${home}/marks`, { places }));
  return writing;
}

function mark() {
  const next = new Set(marks);
  if (!next.delete(place)) next.add(place);
  return write(next);
}

function markRange(one, other) {
  const next = new Set(marks);
  for (let at = Math.min(one, other); at <= Math.max(one, other); at++) next.add(at);
  return write(next);
}

function markRun() {
  const run = troubleAt(place);
  return run && markRange(run.first, run.last);
}

// Mark this frame and the one next to it, and go there.
function markOn(step) {
  const before = place;
  go(place + step);
  return markRange(before, place);
}

let playing = false;

// Show frame after frame, at most as fast as the film.
async function play() {
  playing = !playing;
  by("play").setAttribute("aria-pressed", String(playing));
  while (playing && place < facts.frames.length - 1) {
    const length = 1000 * (facts.times[place + 1] - facts.times[place]) || 40;
    const passed = new Promise((done) => { setTimeout(done, Math.min(length, 1000)); });
    place += 1;
    await show();
    await passed;
  }
  playing = false;
  by("play").setAttribute("aria-pressed", "false");
}

const KEYS = {
  ArrowLeft: () => go(place - 1), ArrowRight: () => go(place + 1), ArrowUp: () => go(place - 10), ArrowDown: () => go(place + 10),
  Home: () => go(0), End: () => go(facts.frames.length - 1), " ": play, n: () => problem(1), p: () => problem(-1), m: mark, M: markRun,
};
const RANGES = { ArrowLeft: -1, ArrowRight: 1 };
const VIEWS = { w: "wipe", b: "beside", o: "onion", d: "difference", a: "after", z: "before" };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typesIn(event)) return;
  if (event.shiftKey && event.key in RANGES) markOn(RANGES[event.key]);
  else if (event.key in KEYS) KEYS[event.key]();
  else if (event.key in VIEWS) { document.querySelector(`[value=${VIEWS[event.key]}]`).checked = true; show(); }
  else if (event.key === "1") { by("pixels").checked = !by("pixels").checked; show(); }
  else return;
  event.preventDefault();
});
for (const [id, action] of Object.entries({
  play, previous: KEYS.ArrowLeft, next: KEYS.ArrowRight, back: KEYS.p, ahead: KEYS.n, mark, markrun: markRun, clear: () => write([]),
})) by(id).addEventListener("click", action);
for (const one of document.querySelectorAll("[name=view], #pixels")) one.addEventListener("change", show);
by("balance").addEventListener("input", show);

let from = null; // where a range begins that is being marked
follow(by("lanes"), (share, event) => {
  go(Math.floor(share * facts.frames.length));
  if (event.type === "pointerdown") from = event.shiftKey ? place : null;
});
by("lanes").addEventListener("pointerup", () => {
  if (from !== null) markRange(from, place);
  from = null;
});
follow(by("picture"), (share) => {
  if (view() !== "wipe" && view() !== "onion") return;
  by("balance").value = 100 * inPicture(by("picture"), share);
  show();
});
by("redo").addEventListener("submit", (event) => {
  event.preventDefault();
  by("which").textContent = counted(marks.size);
  by("sure").returnValue = "no";
  by("sure").showModal();
});
by("sure").addEventListener("close", async () => {
  if (by("sure").returnValue !== "yes") return;
  const asked = Object.fromEntries([...new FormData(by("redo"))].filter(([, value]) => value));
  for (const name of ["identity_strength", "expression_range"]) if (asked[name]) asked[name] = Number(asked[name]);
  await post(`${home}/redo`, asked);
  location.assign("/jobs");
});

facts = await get(`${home}/facts`);
marks = new Set(facts.marks);
by("lanes").setAttribute("aria-valuemax", facts.frames.length - 1);
await show();
by("screen").dataset.ready = "true";
