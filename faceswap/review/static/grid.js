// A grid of any number of pictures. Only the tiles in sight exist, and they are used again.

const GAP = 6, OVERSCAN = 2; // pixels between tiles, rows above and below the visible ones
// Nobody sees pictures that pass by faster than this, so they are loaded when it slows down.
const FAST = 150, SETTLE = 80; // pixels from one frame to the next, milliseconds

export class Grid extends EventTarget {
  // look(number) returns { src, alt, marks, classes } of a picture.
  constructor(element, look) {
    super();
    this.element = element;
    this.canvas = element.querySelector(".canvas");
    this.look = look;
    this.items = [];            // numbers of the pictures, in the order shown
    this.place = new Map();     // their places in it
    this.selected = new Set();  // numbers
    this.cursor = -1;           // place
    this.anchor = 0;            // place at which a range begins
    this.size = 112;
    this.tiles = new Map();     // by place
    this.free = [];
    element.addEventListener("scroll", () => this.#later(), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(element);
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("pointerdown", (event) => this.#press(event));
    element.addEventListener("dblclick", () => this.dispatchEvent(new Event("open")));
  }

  show(items) {
    const current = this.items[this.cursor];
    this.items = items;
    this.place = new Map(items.map((number, place) => [number, place]));
    this.selected = new Set([...this.selected].filter((number) => this.place.has(number)));
    this.cursor = this.place.get(current) ?? Math.min(this.cursor, items.length - 1);
    this.anchor = Math.max(this.cursor, 0);
    this.#measure();
    this.#changed();
  }

  resize(size) {
    const row = Math.floor(this.element.scrollTop / this.pitch) * this.columns;
    this.size = size;
    this.#measure();
    this.element.scrollTop = Math.floor(row / this.columns) * this.pitch;
  }

  // Draw again what the tiles in sight look like.
  refresh() {
    for (const [place, tile] of this.tiles) this.#fill(tile, place);
  }

  // Wait until the pictures in sight are there.
  async painted() {
    const pictures = [...this.tiles.values()].map((tile) => tile.firstChild);
    await Promise.allSettled(pictures.map((picture) => picture.decode()));
  }

  get current() { return this.items[this.cursor]; }

  #measure() {
    const width = this.element.clientWidth - GAP, columns = Math.max(Math.floor(width / (this.size + GAP)), 1);
    const side = Math.floor(width / columns) - GAP;
    if (columns !== this.columns || side !== this.side) {
      Object.assign(this, { columns, side, pitch: side + GAP });
      this.free.push(...this.tiles.values());
      this.tiles.clear();
    }
    this.canvas.style.height = `${Math.ceil(this.items.length / columns) * this.pitch + GAP}px`;
    this.#draw();
  }

  #later() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      const top = this.element.scrollTop;
      this.fast = Math.abs(top - (this.before ?? top)) > FAST;
      this.before = top;
      this.#draw();
      clearTimeout(this.settling);
      if (this.fast) this.settling = setTimeout(() => { this.fast = false; this.refresh(); }, SETTLE);
    });
  }

  #draw() {
    const top = this.element.scrollTop, height = this.element.clientHeight;
    const first = Math.max(Math.floor(top / this.pitch) - OVERSCAN, 0) * this.columns;
    const last = Math.min((Math.ceil((top + height) / this.pitch) + OVERSCAN) * this.columns, this.items.length);
    for (const [place, tile] of this.tiles) {
      if (place < first || place >= last) { this.tiles.delete(place); this.free.push(tile); }
    }
    for (let place = first; place < last; place++) {
      if (this.tiles.has(place)) continue;
      const tile = this.free.pop() ?? this.#tile();
      tile.style.width = tile.style.height = `${this.side}px`;
      tile.style.transform = `translate(${this.#left(place)}px, ${this.#top(place)}px)`;
      this.tiles.set(place, tile);
      this.#fill(tile, place);
      if (!tile.isConnected) this.canvas.append(tile);
    }
    for (const tile of this.free) tile.remove();
  }

  #tile() {
    const tile = document.createElement("div");
    tile.className = "tile";
    tile.setAttribute("role", "option");
    const image = document.createElement("img");
    image.decoding = "async";
    image.draggable = false;
    const marks = document.createElement("div");
    marks.className = "marks";
    tile.append(image, marks);
    return tile;
  }

  #fill(tile, place) {
    const number = this.items[place], [image, row] = tile.children;
    if (this.fast && tile.number !== number) { // the rest follows when it slows down
      tile.number = number;
      tile.id = `tile-${number}`;
      tile.className = "tile";
      image.removeAttribute("src");
      row.replaceChildren();
      return;
    }
    tile.number = number;
    const { src, alt, marks, classes } = this.look(number, this.side);
    if (image.getAttribute("src") !== src) image.src = src;
    image.alt = alt;
    tile.id = `tile-${number}`;
    tile.className = ["tile", ...classes, ...(place === this.cursor ? ["cursor"] : [])].join(" ");
    tile.setAttribute("aria-selected", this.selected.has(number));
    row.replaceChildren(...marks.map((text) => {
      const mark = document.createElement("span");
      mark.textContent = text;
      return mark;
    }));
  }

  #left(place) { return GAP + (place % this.columns) * this.pitch; }
  #top(place) { return GAP + Math.floor(place / this.columns) * this.pitch; }

  #changed() {
    this.refresh();
    const number = this.current;
    if (number === undefined) this.element.removeAttribute("aria-activedescendant");
    else this.element.setAttribute("aria-activedescendant", `tile-${number}`);
    this.dispatchEvent(new Event("select"));
  }

  select(numbers) {
    this.selected = new Set(numbers);
    this.#changed();
  }

  // Move the cursor to a place, select it or a range, and bring it into sight.
  go(place, extend = false, toggle = false) {
    if (!this.items.length) return;
    this.cursor = Math.min(Math.max(place, 0), this.items.length - 1);
    const number = this.items[this.cursor];
    if (extend) {
      const [from, to] = [this.anchor, this.cursor].sort((one, other) => one - other);
      this.selected = new Set(this.items.slice(from, to + 1));
    } else {
      this.anchor = this.cursor;
      if (!toggle) this.selected = new Set([number]);
      else if (!this.selected.delete(number)) this.selected.add(number);
    }
    const top = this.#top(this.cursor), view = this.element;
    if (top < view.scrollTop) view.scrollTop = top - GAP;
    else if (top + this.side > view.scrollTop + view.clientHeight) view.scrollTop = top + this.side + GAP - view.clientHeight;
    this.#draw();
    this.#changed();
  }

  #key(event) {
    const page = Math.max(Math.floor(this.element.clientHeight / this.pitch) - 1, 1) * this.columns;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page };
    if (event.key in steps) this.go(this.cursor < 0 ? 0 : this.cursor + steps[event.key], event.shiftKey);
    else if (event.key === "Home") this.go(0, event.shiftKey);
    else if (event.key === "End") this.go(this.items.length - 1, event.shiftKey);
    else if (event.key === " ") this.go(this.cursor, false, true);
    else if (event.key === "Enter") this.dispatchEvent(new Event("open"));
    else if (event.key === "Escape") this.select([]);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) this.select(this.items);
    else return;
    event.preventDefault();
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #at(x, y) {
    const column = Math.floor((x - GAP) / this.pitch), row = Math.floor((y - GAP) / this.pitch);
    const place = row * this.columns + column;
    const isOn = column >= 0 && column < this.columns && row >= 0 && place < this.items.length;
    return isOn ? place : -1;
  }

  // A click selects, a drag selects all faces in a box.
  #press(event) {
    if (event.button || event.offsetX > this.element.clientWidth) return; // the scroll bar
    this.element.focus({ preventScroll: true });
    const [x, y] = this.#point(event), place = this.#at(x, y);
    const adds = event.ctrlKey || event.metaKey, before = adds ? new Set(this.selected) : new Set();
    let band = null;
    const move = (moved) => {
      const [right, bottom] = this.#point(moved);
      if (!band && Math.hypot(right - x, bottom - y) < 6) return;
      if (!band) {
        band = document.createElement("div");
        band.className = "band";
        this.canvas.append(band);
        this.element.setPointerCapture(event.pointerId);
      }
      const [x0, x1] = [Math.min(x, right), Math.max(x, right)], [y0, y1] = [Math.min(y, bottom), Math.max(y, bottom)];
      Object.assign(band.style, { left: `${x0}px`, top: `${y0}px`, width: `${x1 - x0}px`, height: `${y1 - y0}px` });
      const view = this.element.getBoundingClientRect();
      if (moved.clientY > view.bottom - 24) this.element.scrollTop += 16;
      if (moved.clientY < view.top + 24) this.element.scrollTop -= 16;
      this.select([...before, ...this.#inside(x0, y0, x1, y1)]);
    };
    const end = () => {
      this.element.removeEventListener("pointermove", move);
      this.element.removeEventListener("pointerup", end);
      this.element.removeEventListener("pointercancel", end);
      if (band) band.remove();
      else if (place >= 0) this.go(place, event.shiftKey, adds);
      else this.select([]);
    };
    this.element.addEventListener("pointermove", move);
    this.element.addEventListener("pointerup", end);
    this.element.addEventListener("pointercancel", end);
  }

  #inside(x0, y0, x1, y1) {
    const found = [], [first, last] = [Math.max(Math.floor((y0 - GAP) / this.pitch), 0), Math.floor((y1 - GAP) / this.pitch)];
    for (let row = first; row <= last; row++) {
      for (let column = 0; column < this.columns; column++) {
        const place = row * this.columns + column, left = GAP + column * this.pitch;
        if (place < this.items.length && left < x1 && left + this.side > x0) found.push(this.items[place]);
      }
    }
    return found;
  }
}
