// Where the faces look, in cells of 15 degrees, and which cells another faceset has alone.

const CELL = 15, ACROSS = 6, DOWN = 4; // degrees; cells to each side of the middle
const COLUMNS = 2 * ACROSS, CELLS = COLUMNS * 2 * DOWN; // a cell's number is its row * COLUMNS + its column
const ENOUGH = 3; // faces that the other needs in a cell for it to count as lacking

export class PoseMap {
  constructor(canvas, words, onChoose) {
    this.canvas = canvas;
    this.words = words;
    this.other = null;
    this.name = "";
    this.chosen = null;
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / box.width * COLUMNS);
      const cell = Math.floor((event.clientY - box.top) / box.height * 2 * DOWN) * COLUMNS + column;
      this.chosen = this.chosen === cell ? null : cell;
      onChoose(this.chosen);
    });
  }

  // The number of the cell of a pose; -1 if the pose is not known.
  static cell(pose) {
    const place = (angle, most) => Math.min(Math.max(Math.floor(angle / CELL) + most, 0), 2 * most - 1);
    return pose ? place(pose[1], DOWN) * COLUMNS + place(pose[0], ACROSS) : -1;
  }

  compare(poses, name) {
    this.other = poses;
    this.name = name;
  }

  // How many poses each cell holds.
  static #counts(poses) {
    const counts = new Uint32Array(CELLS);
    for (const pose of poses ?? []) {
      const cell = PoseMap.cell(pose);
      if (cell >= 0) counts[cell] += 1;
    }
    return counts;
  }

  draw(poses) {
    const context = this.canvas.getContext("2d"), { width, height } = this.canvas;
    const style = getComputedStyle(this.canvas), color = (name) => style.getPropertyValue(name);
    const own = PoseMap.#counts(poses), other = PoseMap.#counts(this.other);
    const [w, h] = [width / COLUMNS, height / (2 * DOWN)], most = Math.max(...own, 1), lacking = [];
    context.clearRect(0, 0, width, height);
    for (let cell = 0; cell < CELLS; cell++) {
      const [column, row] = [cell % COLUMNS, Math.floor(cell / COLUMNS)], [left, top] = [column * w, row * h];
      context.globalAlpha = own[cell] ? 0.18 + 0.82 * Math.log1p(own[cell]) / Math.log1p(most) : 0;
      context.fillStyle = color("--accent");
      context.fillRect(left + 1, top + 1, w - 2, h - 2);
      context.globalAlpha = 1;
      if (other[cell]) {
        const lacks = other[cell] >= ENOUGH && !own[cell];
        if (lacks) lacking.push([other[cell], column - ACROSS, row - DOWN]);
        context.strokeStyle = color(lacks ? "--bad" : "--warm");
        context.lineWidth = lacks ? 4 : 2;
        context.strokeRect(left + 4, top + 4, w - 8, h - 8);
      }
      if (cell === this.chosen) {
        context.strokeStyle = color("--text");
        context.lineWidth = 4;
        context.strokeRect(left + 1, top + 1, w - 2, h - 2);
      }
    }
    context.strokeStyle = color("--muted");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(width / 2, 0); context.lineTo(width / 2, height);
    context.moveTo(0, height / 2); context.lineTo(width, height / 2);
    context.stroke();
    this.#say(lacking.sort((one, other) => other[0] - one[0]));
  }

  #say(lacking) {
    if (!this.other) {
      this.words.textContent = "Left and right, up and down, in cells of 15 degrees. A click shows the faces of a cell.";
      return;
    }
    const range = (cell) => `${cell * CELL}° to ${(cell + 1) * CELL}°`;
    const cells = lacking.slice(0, 3).map(([count, x, y]) => `yaw ${range(x)}, pitch ${range(y)} (${count} faces there)`);
    this.words.textContent = lacking.length
      ? `Missing here, but in ${this.name}: ${cells.join("; ")}${lacking.length > 3 ? `; and ${lacking.length - 3} more cells` : ""}.`
      : `Every pose of ${this.name} that has ${ENOUGH} faces is here, too.`;
  }
}
