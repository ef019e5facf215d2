// Try the settings of a conversion on frames, give people models and shots settings, and start it.
// Everything that is chosen is written to files beside the clip at once.

import { get, nameFaces, picture, post, tell, typesIn } from "/static/api.js";
import { compose, decode, follow, inPicture } from "/static/compose.js";

const by = (id) => document.getElementById(id), home = `/conversion/${by("clip").dataset.id}`, form = by("look");
const RANGES = ["identity_strength", "expression_range", "erosion", "feather"];
const NARROW = { skin: 0.04 }, WIDE = 0.06; // the usual width of the edge, by mask
const POLL = 1000; // milliseconds between questions about the survey

let facts = null, original = null, swap = null, faces = [], place = 0;
let survey = { shots: [], looks: [], people: [] }, loop = null;
let range = null; // first and last frame that were chosen on the timeline
let line = 0.5; // where a wipe ends, as a share of the picture
let busy = false, again = false, pending = null, version = 0;

const view = () => document.querySelector("[name=view]:checked").value;
const color = (name) => getComputedStyle(document.body).getPropertyValue(name);
const holds = ([first, last]) => first <= place && place <= last;
// The range that is chosen, a range with settings of its own, or the shot that holds the frame.
const shot = () => [range ?? [1, 0], ...ranges()].find(holds) ?? survey.shots.find(holds);
const now = () => (loop ? loop.first + loop.at : place); // the frame that is shown
const ranges = () => facts.shots.map(({ frames }) => frames.split("-").map(Number)).map(([first, last]) => [first, last ?? first])
  .filter((found) => !survey.shots.some((one) => rangeOf(one) === rangeOf(found))).reverse();
const rangeOf = ([first, last]) => (first === last ? `${first}` : `${first}-${last}`);
const ownOf = (found) => found && facts.shots.find(({ frames }) => frames === rangeOf(found));
const isOfShot = () => form.scope.value === "shot" && shot();

// The settings in the form, as the server takes them.
function chosen() {
  const { model, scope, ...given } = Object.fromEntries(new FormData(form));
  const look = { ...facts.look, ...given, match_detail: form.match_detail.checked };
  if (!form.all_faces.disabled) look.all_faces = form.all_faces.checked;
  for (const name of RANGES) look[name] = Number(form[name].value);
  if (form.feather.dataset.unset) look.feather = null; // it depends on the mask
  return { model: form.model.value, look, shot: isOfShot() ? shot() : null };
}

// Show the settings of the clip, or those of the shot, in the form.
function fill() {
  const own = isOfShot() ? ownOf(shot()) : null, look = { ...facts.look, ...own?.settings };
  if (facts.model) form.model.value = facts.model;
  for (const [name, value] of Object.entries(look)) {
    if (form[name].type === "checkbox") form[name].checked = value;
    else if (value !== null) form[name].value = value;
  }
  if (look.feather === null) {
    form.feather.dataset.unset = "true";
    form.feather.value = NARROW[look.mask] ?? WIDE;
  } else delete form.feather.dataset.unset;
  for (const input of form.querySelectorAll("input[type=range]")) input.previousElementSibling.textContent = input.value;
  for (const name of ["to", "all_faces"]) form[name].disabled = isOfShot() || facts.cast.length > 0;
  form.model.disabled = Boolean(isOfShot());
  by("usual").textContent = isOfShot() ? "As in the clip" : "Reset";
  by("differs").hidden = Boolean(isOfShot() || !ownOf(shot()));
  nameFaces(form.model, form.to);
}

function draw() {
  const after = loop ? loop.pictures[loop.at] : swap;
  if (!original) return;
  by("frame").classList.toggle("scrolls", by("pixels").checked);
  if (after && !loop && view() === "wipe") compose(by("picture"), original, after, "wipe", line);
  else compose(by("picture"), view() !== "original" && after ? after : original, null, view(), 0);
  outline();
}

// Buttons over the faces; they show their borders under the pointer, on focus, or always.
function outline() {
  const canvas = by("picture"), box = by("faces"), { clientWidth, clientHeight, width, height } = canvas;
  const scale = Math.min(clientWidth / width, clientHeight / height) || 1;
  const left = canvas.offsetLeft + (clientWidth - width * scale) / 2, top = canvas.offsetTop + (clientHeight - height * scale) / 2;
  box.classList.toggle("shown", by("frames").checked);
  box.replaceChildren(...(loop ? [] : faces).map((face, number) => {
    const button = document.createElement("button"), [x, y, right, bottom] = face.box.map((side) => side * scale);
    Object.assign(button.style, { left: `${left + x}px`, top: `${top + y}px`, width: `${right - x}px`, height: `${bottom - y}px` });
    const words = face.target === null ? face.why : facts.cast.length ? `person ${face.target + 1}` : "swapped";
    button.className = face.target === null ? "left" : "swapped";
    button.title = `${words}: click to give this person ${modelName(form.model.value)}`;
    button.setAttribute("aria-label", `Face ${number + 1}, ${button.title}`);
    const [one, other] = [(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2];
    button.addEventListener("click", () => assign({ frame: place, x: one, y: other }));
    return button;
  }));
}

const modelName = (id) => [...form.model.options].find(({ value }) => value === id)?.textContent ?? "no model";

// Write what was changed, and show the newest settings; what is asked meanwhile waits.
async function preview() {
  if (busy) { again = true; return; }
  if (!form.model.value) return;
  busy = true;
  by("clip").dataset.state = "busy";
  const began = performance.now(), frame = place;
  try {
    await save();
    const found = await post(`${home}/preview`, { model: form.model.value, frame });
    swap = await decode(found.images[0]);
    faces = found.faces;
    by("told").textContent = `${words(faces)}, ${Math.round(performance.now() - began)} ms`;
  } catch {
    swap = null; // the user has been told
    faces = [];
  }
  draw();
  busy = false;
  if (again) { again = false; preview(); } else by("clip").dataset.state = "shown";
}

async function save() {
  const change = pending;
  pending = null;
  if (change) take(await post(`${home}/choose`, change));
}

function words(found) {
  const left = found.filter(({ target }) => target === null), swapped = found.length - left.length;
  if (!found.length) return "no face";
  const told = `${swapped} of ${found.length} ${found.length === 1 ? "face" : "faces"} swapped`;
  return left.length ? `${told} (${[...new Set(left.map(({ why }) => why))].join(", ")})` : told;
}

// Show what is in the files now.
function take(found) {
  facts = { ...facts, ...found };
  people();
  lanes();
}

async function go(at) {
  stopLoop();
  place = Math.min(Math.max(Math.round(at), 0), facts.frames - 1);
  where();
  fill();
  lanes();
  const wanted = place;
  try {
    const found = await picture(`${home}/frame/${wanted}`);
    if (wanted !== place) return;
    original = found;
  } catch (error) {
    tell(error.message);
    return;
  }
  swap = null;
  faces = [];
  draw();
  await preview();
}

function say() {
  by("where").textContent = `frame ${now()}, ${(now() * facts.seconds / facts.frames).toFixed(2)} s`;
}

function where() {
  const found = shot();
  say();
  const radio = form.querySelector("[name=scope][value=shot]");
  radio.disabled = !found;
  if (!found && radio.checked) form.scope.value = "clip";
  const number = survey.shots.indexOf(found) + 1;
  by("shot").textContent = found ? `${number ? `Shot ${number}:` : "Frames"} ${rangeOf(found)}` : "This shot";
  const slider = by("lanes");
  slider.setAttribute("aria-valuenow", place);
  slider.setAttribute("aria-valuetext", by("where").textContent);
}

// Draw the shots, and a bar for each person where the person is seen.
function lanes() {
  const canvas = by("lanes");
  canvas.width = canvas.clientWidth * devicePixelRatio;
  const context = canvas.getContext("2d"), { width, height } = canvas, x = (at) => Math.round(at * width / facts.frames);
  const shots = survey.shots.length ? survey.shots : [[0, facts.frames - 1]];
  context.clearRect(0, 0, width, height);
  for (const found of shots) {
    context.fillStyle = color(ownOf(found) ? "--accent" : "--muted");
    context.globalAlpha = ownOf(found) ? 1 : 0.5;
    context.fillRect(x(found[0]), 5, Math.max(x(found[1] + 1) - x(found[0]) - 2, 1), height - 10);
  }
  context.globalAlpha = 1;
  const own = ranges().reverse();
  for (const found of range ? [...own, range] : own) {
    const [left, right] = [x(found[0]), Math.max(x(found[1] + 1), x(found[0]) + 2)];
    context.fillStyle = context.strokeStyle = color("--accent");
    if (ownOf(found)) context.fillRect(left, 3, right - left, height - 6);
    context.lineWidth = 2 * devicePixelRatio;
    if (found === range) context.strokeRect(left, 2, right - left, height - 4);
  }
  document.querySelector(".legend .own").hidden = !facts.shots.length;
  context.fillStyle = color("--text");
  context.fillRect(x(now() + 0.5) - 1, 0, 3, height);
  for (const lane of document.querySelectorAll("#people canvas")) presence(lane, survey.people[lane.dataset.person]);
}

function presence(canvas, person) {
  canvas.width = canvas.clientWidth * devicePixelRatio;
  const context = canvas.getContext("2d"), { width, height } = canvas, { looks } = survey;
  const reach = looks.length > 1 ? (looks.at(-1) - looks[0]) / (looks.length - 1) / 2 : facts.frames / 2;
  context.fillStyle = color("--good");
  for (const look of person.looks) {
    const at = looks[look], found = survey.shots.find(([first, last]) => first <= at && at <= last);
    const first = Math.max(at - reach, found[0]), last = Math.min(at + reach, found[1] + 1);
    const left = Math.floor(first * width / facts.frames), right = Math.ceil(last * width / facts.frames);
    context.fillRect(left, 2, Math.max(right - left, 1), height - 4);
  }
  context.fillStyle = color("--text");
  context.fillRect((now() + 0.5) * width / facts.frames - 1, 0, 2, height);
}

// The people that the survey found, and those who have a model.
function people() {
  by("people").replaceChildren(...survey.people.map((person, number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image(28, 28), lane = document.createElement("canvas");
    image.src = `${home}/person/${number}`;
    image.alt = "";
    button.append(image);
    button.title = `Give this person ${modelName(form.model.value)}`;
    button.setAttribute("aria-label", `Person ${number + 1} of the clip. ${button.title}`);
    button.addEventListener("click", async () => {
      await assign(person);
      go(person.frame);
    });
    lane.dataset.person = number;
    lane.height = 16;
    item.append(button, lane);
    return item;
  }));
  version += 1; // another photo may be at the same address
  by("cast").replaceChildren(...facts.cast.map((entry, number) => {
    const item = document.createElement("li"), image = new Image(44, 44), model = form.model.cloneNode(true), to = form.to.cloneNode(true), out = document.createElement("button");
    image.src = `${home}/cast/${number}?${version}`;
    image.alt = `Person ${number + 1}`;
    model.value = entry.model ?? "";
    to.value = entry.to;
    out.textContent = "Remove";
    for (const [select, label] of [[model, "Model"], [to, "Face"]]) {
      select.disabled = false;
      select.removeAttribute("name");
      select.setAttribute("aria-label", `${label} of person ${number + 1}`);
      select.addEventListener("change", () => recast({ entry: number, model: model.value, to: to.value }));
    }
    out.addEventListener("click", () => recast({ entry: number, model: null }));
    item.append(image, model, to, out);
    return item;
  }));
  by("cast").hidden = !facts.cast.length;
}

async function assign({ frame, x, y }) {
  await save();
  const to = form.to.disabled && facts.cast.length ? "b" : form.to.value;
  take(await post(`${home}/assign`, { frame, x, y, model: form.model.value, to }));
  fill();
  await preview();
}

async function recast(change) {
  take(await post(`${home}/cast`, change));
  fill();
  await preview();
}

async function play() {
  if (loop) return stopLoop();
  const rate = facts.seconds ? facts.frames / facts.seconds : 25, found = shot() ?? [0, facts.frames - 1];
  const count = Math.min(Math.round(rate), 48, found[1] - found[0] + 1);
  const first = Math.min(Math.max(place - Math.floor(count / 2), found[0]), found[1] - count + 1);
  by("clip").dataset.state = "busy";
  by("told").textContent = `swapping frames ${first} to ${first + count - 1}`;
  const began = performance.now();
  try {
    const { images } = await post(`${home}/loop`, { model: form.model.value, frame: first, count });
    loop = { pictures: await Promise.all(images.map(decode)), at: 0, timer: 0, first };
  } catch {
    by("told").textContent = "";
    by("clip").dataset.state = "shown";
    return;
  }
  by("told").textContent = `${count} frames in ${((performance.now() - began) / 1000).toFixed(1)} s`;
  loop.timer = setInterval(() => { loop.at = (loop.at + 1) % loop.pictures.length; draw(); lanes(); say(); }, 1000 / rate);
  by("loop").setAttribute("aria-pressed", "true");
  by("clip").dataset.state = "playing";
}

function stopLoop() {
  if (!loop) return;
  clearInterval(loop.timer);
  loop = null;
  by("loop").removeAttribute("aria-pressed");
  say();
  by("clip").dataset.state = "shown";
  draw();
  lanes();
}

function nextShot(step) {
  const at = survey.shots.findIndex(([first, last]) => first <= place && place <= last);
  const found = survey.shots[step < 0 && place > survey.shots[at]?.[0] ? at : at + step];
  if (found) go(found[0]);
}

async function look() {
  const found = await get(`${home}/survey`);
  if (found.shots) {
    survey = found;
    by("survey").textContent = "";
    where();
    fill();
    people();
    lanes();
    by("clip").dataset.survey = "done";
  } else if (found.error) {
    by("survey").textContent = `${found.error}: shots and people are not known`;
    by("retry").hidden = false;
  } else {
    by("survey").textContent = `looking for shots and people: ${Math.round(100 * found.done)} %`;
    setTimeout(look, POLL);
  }
}

by("retry").addEventListener("click", async () => {
  by("retry").hidden = true;
  await post(`${home}/survey`, {});
  look();
});
form.addEventListener("input", (event) => {
  if (event.target.name === "scope") { fill(); return; }
  if (event.target === form.feather) delete form.feather.dataset.unset;
  if (event.target.type === "range") event.target.previousElementSibling.textContent = event.target.value;
  stopLoop();
  pending = chosen();
  preview();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  await save();
  await start("ask");
});
async function start(existing) {
  const { exists, free } = await post(`${home}/start`, { model: form.model.value, existing });
  if (!exists) { location.assign("/jobs"); return; }
  by("old").textContent = exists;
  by("free").textContent = free;
  by("replace").returnValue = "no";
  by("replace").showModal();
}
by("replace").addEventListener("close", () => { if (by("replace").returnValue !== "no") start(by("replace").returnValue); });
by("usual").addEventListener("click", async () => {
  const { model, shot: found } = chosen();
  take(await post(`${home}/choose`, { model, look: null, shot: found }));
  fill();
  preview();
});
by("loop").addEventListener("click", play);
for (const one of document.querySelectorAll("[name=view], #pixels, #frames")) one.addEventListener("change", draw);
const VIEWS = { a: "swap", w: "wipe", z: "original" };
const CHECKS = { 1: "pixels", f: "frames" };
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typesIn(event) || by("replace").open) return;
  if (event.key in STEPS && !event.target.matches("input")) go(place + STEPS[event.key]);
  else if (event.key in VIEWS) {
    document.querySelector(`[value=${VIEWS[event.key]}]`).checked = true;
    draw();
  } else if (event.key in CHECKS) {
    by(CHECKS[event.key]).checked = !by(CHECKS[event.key]).checked;
    draw();
  } else if (event.key === "l") play();
  else if (event.key === ",") nextShot(-1);
  else if (event.key === ".") nextShot(1);
  else return;
  event.preventDefault();
});
follow(by("picture"), (share) => {
  if (view() !== "wipe") return;
  line = inPicture(by("picture"), share);
  draw();
});
let from = null; // where a range begins that is being chosen
follow(by("lanes"), (share, event) => {
  const at = Math.min(Math.max(Math.round(share * facts.frames - 0.5), 0), facts.frames - 1);
  if (event.type === "pointerdown") from = event.shiftKey ? at : null;
  if (from !== null) range = [Math.min(from, at), Math.max(from, at)];
  else if (range && (at < range[0] || range[1] < at)) range = null;
  go(at);
  if (from !== null && !form.scope.value.startsWith("shot")) {
    form.scope.value = "shot";
    fill();
  }
});
new ResizeObserver(() => { if (facts) { outline(); lanes(); } }).observe(by("frame"));

facts = await get(`${home}/facts`);
by("lanes").setAttribute("aria-valuemax", facts.frames - 1);
take({});
fill();
look();
await go(0);
by("clip").dataset.ready = "true";
