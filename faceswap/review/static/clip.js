// Try the settings of a conversion on a frame, and start it.

import { get, picture, post, tell } from "/static/api.js";

const by = (id) => document.getElementById(id), home = `/conversion/${by("clip").dataset.id}`, form = by("look");
let original = null, swap = null, busy = false, again = false;

const view = () => document.querySelector("[name=view]:checked").value;

function look() {
  const { model, ...given } = Object.fromEntries(new FormData(form));
  const found = { ...given, match_detail: form.match_detail.checked, all_faces: form.all_faces.checked };
  for (const name of ["identity_strength", "expression_range", "erosion", "feather"]) found[name] = Number(found[name]);
  if (form.feather.dataset.unset) delete found.feather; // it depends on the mask
  return { model, look: found };
}

function draw() {
  if (!original) return;
  const canvas = by("picture"), context = canvas.getContext("2d"), { width, height } = original;
  canvas.width = width;
  canvas.height = height;
  by("frame").classList.toggle("scrolls", by("pixels").checked);
  context.drawImage(view() !== "original" && swap ? swap : original, 0, 0);
  if (view() === "wipe" && swap) context.drawImage(original, 0, 0, width / 2, height, 0, 0, width / 2, height);
}

function bitmap(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
}

// Show the newest settings; what is asked meanwhile waits for the answer.
async function preview() {
  if (busy) { again = true; return; }
  const { model, look: chosen } = look();
  if (!model) return;
  busy = true;
  by("clip").dataset.state = "busy";
  const began = performance.now(), frame = Number(by("at").value);
  try {
    const { image, faces } = await post(`${home}/preview`, { model, look: chosen, frame });
    swap = await bitmap(image);
    const told = { 0: "no face", 1: "1 face" }[faces] ?? `${faces} faces, all swapped here`;
    by("told").textContent = `${told}, ${Math.round(performance.now() - began)} ms`;
  } catch {
    swap = null; // the user has been told
  }
  draw();
  busy = false;
  if (again) { again = false; preview(); } else by("clip").dataset.state = "shown";
}

async function go() {
  by("where").textContent = by("at").value;
  swap = null;
  try {
    original = await picture(`${home}/frame/${by("at").value}`);
  } catch (error) {
    tell(error.message);
  }
  draw();
  preview();
}

function outputs() {
  for (const input of form.querySelectorAll("input[type=range]")) input.previousElementSibling.textContent = input.value;
}

form.addEventListener("input", (event) => {
  if (event.target === form.feather) delete form.feather.dataset.unset;
  outputs();
  preview();
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  await post(`${home}/start`, look());
  location.assign("/jobs");
});
by("usual").addEventListener("click", () => {
  const chosen = form.model.value;
  form.reset();
  form.model.value = chosen;
  form.feather.dataset.unset = "true";
  outputs();
  preview();
});
by("at").addEventListener("input", go);
for (const one of document.querySelectorAll("[name=view], #pixels")) one.addEventListener("change", draw);
const VIEWS = { a: "swap", w: "wipe", z: "original" };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=range]")) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };
  if (event.key in steps && !event.target.matches("input")) {
    by("at").value = Number(by("at").value) + steps[event.key];
    go();
  } else if (event.key in VIEWS) {
    document.querySelector(`[value=${VIEWS[event.key]}]`).checked = true;
    draw();
  } else if (event.key === "1") {
    by("pixels").checked = !by("pixels").checked;
    draw();
  } else return;
  event.preventDefault();
});

const facts = await get(`${home}/facts`);
by("at").max = facts.frames - 1;
outputs();
await go();
by("clip").dataset.ready = "true";
