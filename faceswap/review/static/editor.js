// A face large: drag its landmarks, paint what counts as the face.

import { get, picture, tell } from "/static/api.js";

const LOOPS = [[36, 41], [42, 47], [48, 59], [60, 67]]; // eyes and lips are closed
const LINES = [[0, 16], [17, 21], [22, 26], [27, 30], [31, 35]];
const REACH = 14; // pixels on the screen within which a press takes a landmark

export class Editor {
  constructor(dialog, home, faces) {
    this.dialog = dialog;
    this.home = home;
    this.faces = faces;
    this.canvas = dialog.querySelector("#stage");
    this.save = dialog.querySelector("#save");
    this.chosen = -1;
    this.mask = document.createElement("canvas");
    this.canvas.addEventListener("pointerdown", (event) => this.#press(event));
    this.canvas.addEventListener("pointermove", (event) => this.#hover(event));
    dialog.addEventListener("keydown", (event) => this.#key(event));
    dialog.addEventListener("change", () => this.#draw());
    this.save.addEventListener("click", () => this.#save());
    for (const event of ["cancel", "submit"]) dialog.addEventListener(event, (leaving) => this.#leave(leaving));
    dialog.querySelector("#reset").addEventListener("click", () => this.#reset());
  }

  get tool() { return this.dialog.querySelector("[name=tool]:checked").value; }
  get brush() { return Number(this.dialog.querySelector("#brush").value); }

  async open(number) {
    this.number = number;
    const address = (what) => `${this.home}/${what}/${number}`;
    const [image, mask, points] = await Promise.all([picture(address("crop")), picture(address("mask")), get(address("landmarks"))]);
    if (number !== this.number) return; // another face was opened meanwhile
    Object.assign(this, { image, points, chosen: -1, moved: false, painted: false, warned: false });
    const size = this.faces.size();
    this.zoom = Math.max(Math.round(1280 / size), 1);
    this.canvas.width = this.canvas.height = size * this.zoom;
    this.mask.width = this.mask.height = size;
    this.#alpha(mask);
    this.dialog.querySelector("#editing").textContent = this.faces.name(number);
    if (!this.dialog.open) this.dialog.showModal();
    this.canvas.focus();
    this.#draw();
    this.dialog.dataset.face = number;
  }

  // Say once that something is not saved before it is lost.
  #leave(event) {
    if (this.warned || !(this.moved || this.painted)) return;
    event.preventDefault();
    this.warned = true;
    tell("this face is not saved yet: S saves it, and a second try closes it without");
  }

  // Keep the mask as the opacity of a canvas, so that it can be laid over the face.
  #alpha(bitmap) {
    const context = this.mask.getContext("2d", { willReadFrequently: true });
    context.clearRect(0, 0, this.mask.width, this.mask.height);
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, this.mask.width, this.mask.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data[at + 3] = pixels.data[at];
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  #draw() {
    this.save.disabled = !(this.moved || this.painted);
    const context = this.canvas.getContext("2d"), side = this.canvas.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, 0, 0, side, side);
    if (this.tool === "landmarks") this.#drawPoints(context);
    else this.#drawMask(context, side);
  }

  #drawMask(context, side) {
    const shade = document.createElement("canvas");
    shade.width = shade.height = side;
    const over = shade.getContext("2d");
    over.fillStyle = "#d01030";
    over.fillRect(0, 0, side, side);
    over.globalCompositeOperation = "destination-out";
    over.drawImage(this.mask, 0, 0, side, side);
    context.globalAlpha = 0.5;
    context.drawImage(shade, 0, 0);
    context.globalAlpha = 1;
    if (this.at) {
      context.strokeStyle = "#fff";
      context.lineWidth = this.zoom / 2;
      context.beginPath();
      context.arc(this.at[0], this.at[1], this.brush * this.zoom / 2, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  #drawPoints(context) {
    const place = (point) => point.map((value) => (value + 0.5) * this.zoom);
    context.lineWidth = Math.max(this.zoom * 0.35, 1);
    context.strokeStyle = "#ffffffb0";
    for (const [first, last] of [...LINES, ...LOOPS]) {
      context.beginPath();
      for (let at = first; at <= last; at++) context.lineTo(...place(this.points[at]));
      if (LOOPS.some(([start]) => start === first)) context.closePath();
      context.stroke();
    }
    const radius = 5 * this.canvas.width / this.canvas.clientWidth;
    this.points.forEach((point, at) => {
      context.fillStyle = at === this.chosen ? "#ffcf70" : "#7cc4ff";
      context.strokeStyle = "#000";
      context.beginPath();
      context.arc(...place(point), at === this.chosen ? radius * 1.5 : radius, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    });
  }

  // The place of a pointer on the canvas, and in the crop.
  #places(event) {
    const box = this.canvas.getBoundingClientRect(), scale = this.canvas.width / box.width;
    const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    return [at, at.map((value) => value / this.zoom - 0.5), scale];
  }

  #hover(event) {
    if (this.tool === "landmarks" || event.buttons) return;
    [this.at] = this.#places(event);
    this.#draw();
  }

  #press(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [, start, scale] = this.#places(event);
    if (this.tool === "landmarks") {
      const away = this.points.map((point) => Math.hypot(point[0] - start[0], point[1] - start[1]));
      const nearest = away.indexOf(Math.min(...away));
      this.chosen = away[nearest] * this.zoom <= REACH * scale ? nearest : -1;
    }
    let last = start;
    const move = (moved) => {
      const [at, place] = this.#places(moved);
      this.at = at;
      if (this.tool !== "landmarks") this.#stroke(last, place);
      else if (this.chosen >= 0 && (place[0] !== start[0] || place[1] !== start[1])) {
        const point = this.points[this.chosen];
        this.points[this.chosen] = [point[0] + place[0] - last[0], point[1] + place[1] - last[1]];
        this.moved = true;
      }
      last = place;
      this.#draw();
    };
    const end = () => {
      this.canvas.removeEventListener("pointermove", move);
      this.canvas.removeEventListener("pointerup", end);
      this.canvas.removeEventListener("pointercancel", end);
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
    move(event);
  }

  #stroke(from, to) {
    const context = this.mask.getContext("2d", { willReadFrequently: true });
    context.globalCompositeOperation = this.tool === "paint" ? "source-over" : "destination-out";
    context.strokeStyle = "#fff";
    context.lineWidth = this.brush;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from[0] + 0.5, from[1] + 0.5);
    context.lineTo(to[0] + 0.5, to[1] + 0.5);
    context.stroke();
    this.painted = true;
  }

  #key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const tools = { l: "landmarks", m: "paint", n: "erase" }, key = event.key.toLowerCase();
    const isTyping = event.target.matches("input[type=range], input[type=radio]");
    if (event.ctrlKey || event.metaKey) return;
    if (key in tools) { this.dialog.querySelector(`[value=${tools[key]}]`).checked = true; this.#draw(); }
    else if (key === "s") this.#save();
    else if (event.target === this.canvas && key === "tab" && this.tool === "landmarks") {
      const next = this.chosen + (event.shiftKey ? -1 : 1);
      if (next < 0 || next >= this.points.length) { this.chosen = -1; this.#draw(); return; }
      this.chosen = next;
      this.#draw();
    } else if (event.key in steps && !isTyping) {
      const [x, y] = steps[event.key];
      if (this.chosen >= 0 && this.tool === "landmarks") {
        const by = event.shiftKey ? 5 : 0.5;
        this.points[this.chosen] = [this.points[this.chosen][0] + by * x, this.points[this.chosen][1] + by * y];
        this.moved = true;
        this.#draw();
      } else if (x && !this.moved && !this.painted) this.open(this.faces.step(x));
    } else return;
    event.preventDefault();
  }

  // A grey PNG: the opacity of the mask over black.
  #png() {
    const flat = document.createElement("canvas");
    flat.width = flat.height = this.mask.width;
    const context = flat.getContext("2d");
    context.fillRect(0, 0, flat.width, flat.height);
    context.drawImage(this.mask, 0, 0);
    return flat.toDataURL("image/png").split(",")[1];
  }

  async #save() {
    const faces = [this.faces.key(this.number)];
    if (this.painted) await this.faces.save({ edit: "mask", faces, mask: this.#png() });
    if (this.moved) await this.faces.save({ edit: "landmarks", faces, points: this.points });
    await this.open(this.number);
  }

  async #reset() {
    const faces = [this.faces.key(this.number)];
    await this.faces.save(this.tool === "landmarks" ? { edit: "landmarks", faces } : { edit: "mask", faces });
    await this.open(this.number);
  }
}
