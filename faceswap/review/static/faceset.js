// The page of a faceset: sort, select, reject, restore, choose photos for the model.

import { get, post, tell } from "/static/api.js";
import { Editor } from "/static/editor.js";
import { Grid } from "/static/grid.js";
import { PoseMap } from "/static/posemap.js";

const root = document.querySelector(".faceset"), home = `/facesets/${root.dataset.id}`;
const by = (id) => document.getElementById(id);
const THUMBS = [96, 128, 192, 256];

let faces = null;    // columns, one value per face
let state = null;    // what was edited, as sets of numbers
let cell = null;     // the cell of the pose map that is shown alone

const grid = new Grid(by("grid"), (number, side) => {
  const wanted = side * devicePixelRatio;
  const thumb = THUMBS.find((one) => one >= wanted) ?? THUMBS.at(-1);
  const marks = [];
  if (state.exemplars.has(number)) marks.push("model");
  if (state.landmarks.has(number)) marks.push("landmarks");
  if (state.masks.has(number)) marks.push("mask");
  if (state.rejected.has(number)) marks.push("rejected");
  return {
    src: `${home}/thumb/${number}/${thumb}?v=${faces.version}`,
    alt: `${faces.source[number]}, frame ${faces.frame[number]}${marks.length ? `: ${marks.join(", ")}` : ""}`,
    marks,
    classes: state.rejected.has(number) ? ["rejected"] : [],
  };
});
const map = new PoseMap(by("poses"), by("lacks"), (chosen) => { cell = chosen; show(); });
const editor = new Editor(by("editor"), home, {
  name: (number) => faces.key[number],
  key: (number) => faces.key[number],
  size: () => faces.size,
  step: (by) => { grid.go(grid.cursor + by); return grid.current; },
  save: (request) => edit(request),
});

// The value by which a face is sorted; what is unknown comes last.
const VALUES = {
  sharpness: (n) => faces.sharpness[n],
  distance: (n) => faces.distance?.[n],
  yaw: (n) => faces.pose[n]?.[0],
  pitch: (n) => faces.pose[n]?.[1],
  expression: (n) => faces.expression[n] && `${faces.expression[n][0]} ${(1 - faces.expression[n][1]).toFixed(3)}`,
  occluded: (n) => faces.occluded[n],
  light: (n) => faces.light?.[n],
  side: (n) => faces.side[n],
  twins: (n) => faces.twin?.[n],
};

function sorted(numbers) {
  const wanted = by("sort").value, value = VALUES[wanted.replace("-", "")], sign = wanted.startsWith("-") ? -1 : 1;
  if (!value) return numbers;
  const known = numbers.filter((n) => value(n) != null), unknown = numbers.filter((n) => value(n) == null);
  known.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    return sign * (a < b ? -1 : a > b ? 1 : 0) || one - other;
  });
  return wanted === "-distance" ? [...unknown, ...known] : [...known, ...unknown]; // who knows who that is
}

const FILTERS = {
  kept: (n) => !state.rejected.has(n),
  rejected: (n) => state.rejected.has(n),
  all: () => true,
  exemplars: (n) => state.exemplars.has(n),
  corrected: (n) => state.landmarks.has(n) || state.masks.has(n),
};

function show() {
  const keep = FILTERS[by("show").value], person = by("person").value;
  const numbers = faces.key.map((_, n) => n).filter((n) => keep(n)
    && (person === "" || String(faces.person[n] ?? "?") === person)
    && (cell === null || PoseMap.cell(faces.pose[n]) === cell));
  grid.show(sorted(numbers));
  names();
  map.draw(faces.pose.filter((_, n) => !state.rejected.has(n)));
}

function took(found) {
  state = { ...found };
  for (const name of ["rejected", "exemplars", "landmarks", "masks"]) state[name] = new Set(found[name]);
  by("undo").disabled = !state.undoable;
  by("redo").disabled = !state.redoable;
}

async function edit(request) {
  took(await post(`${home}/edits`, request));
  show();
  root.dataset.edits = Number(root.dataset.edits ?? 0) + 1; // made on this page
}

const chosen = () => [...grid.selected];
const keys = (numbers) => numbers.map((n) => faces.key[n]);

async function reject() {
  const numbers = chosen().filter((n) => !state.rejected.has(n));
  if (numbers.length) await edit({ edit: "reject", faces: keys(numbers) });
}

async function restore() {
  const numbers = chosen().filter((n) => state.rejected.has(n));
  if (numbers.length) await edit({ edit: "restore", faces: keys(numbers) });
}

// Choose photos for the model; if all of them are chosen already, take them back.
async function exemplar() {
  const numbers = chosen(), all = numbers.every((n) => state.exemplars.has(n));
  const rest = [...state.exemplars].filter((n) => !numbers.includes(n));
  if (numbers.length) await edit({ edit: "exemplars", faces: keys(all ? rest : [...rest, ...numbers]) });
}

async function undo() { if (state.undoable) await edit({ edit: "undo" }); }
async function redo() { if (state.redoable) await edit({ edit: "redo" }); }
function open() { if (grid.current !== undefined) editor.open(grid.current); }

function fact(list, name, value) {
  if (value === null || value === undefined) return;
  const [term, text] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  text.textContent = value;
  list.append(term, text);
}

function facts() {
  const number = grid.current, many = grid.selected.size;
  if (!grid.items.length) by("count").textContent = "no face here: choose another person or list";
  else by("count").textContent = `${many ? `${many} of ` : ""}${grid.items.length} ${grid.items.length === 1 ? "face" : "faces"}`;
  const picked = chosen();
  by("reject").disabled = !picked.some((n) => !state.rejected.has(n));
  by("restore").disabled = !picked.some((n) => state.rejected.has(n));
  by("exemplar").disabled = !many;
  by("open").disabled = number === undefined;
  if (number === undefined) return;
  const image = document.createElement("img"), list = document.createElement("dl");
  image.src = `${home}/crop/${number}?v=${faces.version}-${state.landmarks.has(number)}-${state.undoable}`;
  image.alt = faces.key[number];
  const [yaw, pitch, roll] = faces.pose[number] ?? [];
  fact(list, "source", faces.source[number]);
  fact(list, "frame", faces.frame[number]);
  fact(list, "size", `${faces.side[number]} px`);
  if (yaw !== undefined) fact(list, "yaw, pitch, roll", [yaw, pitch, roll].map((angle) => `${Math.round(angle)}°`).join(", "));
  fact(list, "sharpness", faces.sharpness[number]?.toFixed(2));
  fact(list, "expression", faces.expression[number]?.[0].replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`));
  const hidden = faces.occluded[number];
  fact(list, "hidden", hidden == null ? null : `${Math.round(100 * hidden)} %`);
  fact(list, "glasses", { true: "yes", false: "no" }[faces.glasses[number]]);
  fact(list, "unlike the others", faces.distance?.[number]?.toFixed(2));
  by("facts").replaceChildren(image, list);
}

// Say how many of the faces that are listed show each person.
function names() {
  const keep = FILTERS[by("show").value], counts = new Map();
  faces.key.forEach((_, n) => {
    const person = String(faces.person?.[n] ?? "?");
    if (keep(n)) counts.set(person, (counts.get(person) ?? 0) + 1);
  });
  for (const option of [...by("person").options].slice(1)) {
    const { value } = option, called = value === "?" ? "unknown" : `person ${Number(value) + 1}`;
    option.textContent = `${called} (${counts.get(value) ?? 0})`;
  }
}

async function people() {
  Object.assign(faces, await get(`${home}/people`));
  const seen = [...new Set(faces.person.map((person) => person ?? "?"))].sort((one, other) => (one === "?") - (other === "?") || one - other);
  by("person").append(...seen.map((person) => new Option("", String(person))));
  by("person").disabled = seen.length < 2;
  if (by("sort").value.endsWith("distance")) show(); // now that it is known
  else { names(); facts(); }
}

async function sort() {
  const wanted = by("sort").value;
  if ((wanted === "light" || wanted === "twins") && !faces.light) {
    tell(`looking at ${faces.key.length} faces`);
    Object.assign(faces, await get(`${home}/looks`));
  }
  show();
  grid.go(0);
  grid.select([]); // the next key must not reject a face that nobody chose
}

const KEYS = { x: reject, r: restore, e: exemplar, Delete: reject };

addEventListener("keydown", (event) => {
  if (by("editor").open || event.target.matches("select, input")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && key === "z") (event.shiftKey ? redo : undo)();
  else if (isCommand && key === "y") redo();
  else if (!isCommand && key in KEYS) KEYS[key]();
  else return;
  event.preventDefault();
});
for (const [id, action] of Object.entries({ reject, restore, exemplar, undo, redo, open })) {
  by(id).addEventListener("click", () => { action(); by("grid").focus({ preventScroll: true }); });
}
by("sort").addEventListener("change", sort);
by("show").addEventListener("change", show);
by("person").addEventListener("change", show);
by("size").addEventListener("input", () => grid.resize(Number(by("size").value)));
by("other").addEventListener("change", async () => {
  const other = by("other").value;
  const found = other ? await get(`/facesets/${other}/faces`) : null;
  const out = new Set(found?.state.rejected);
  map.compare(found && found.pose.filter((_, n) => !out.has(n)), by("other").selectedOptions[0].textContent);
  show();
});
grid.addEventListener("select", facts);
grid.addEventListener("open", open);

const found = await get(`${home}/faces`);
faces = found;
took(found.state);
show();
by("grid").focus({ preventScroll: true });
root.dataset.ready = "true";
await grid.painted(); // what comes next would make the server slower
people();
