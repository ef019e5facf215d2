// Where the faces look, in cells of 15 degrees, and which cells another faceset has alone.

const CELL = 15, ACROSS = 6, DOWN = 4; // degrees; cells to each side of the middle
const ENOUGH = 3; // faces that the other needs in a cell for it to count as lacking

export class PoseMap {
  constructor(canvas, words, onChoose) {
    this.canvas = canvas;
    this.words = words;
    this.other = null;
    this.name = "";
    this.cell = null;
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const cell = [Math.floor((event.clientX - box.left) / box.width * 2 * ACROSS) - ACROSS,
        Math.floor((event.clientY - box.top) / box.height * 2 * DOWN) - DOWN];
      this.cell = this.cell && String(this.cell) === String(cell) ? null : cell;
      onChoose(this.cell);
    });
  }

  static cell(pose) {
    const limit = (value, most) => Math.min(Math.max(Math.floor(value / CELL), -most), most - 1);
    return pose && [limit(pose[0], ACROSS), limit(pose[1], DOWN)];
  }

  static holds(cell, pose) { return String(PoseMap.cell(pose)) === String(cell); }

  compare(poses, name) {
    this.other = poses;
    this.name = name;
  }

  static #counts(poses) {
    const counts = new Map();
    for (const pose of poses) {
      if (pose) counts.set(String(PoseMap.cell(pose)), (counts.get(String(PoseMap.cell(pose))) ?? 0) + 1);
    }
    return counts;
  }

  draw(poses, chosen) {
    const context = this.canvas.getContext("2d"), { width, height } = this.canvas;
    const style = getComputedStyle(this.canvas), color = (name) => style.getPropertyValue(name);
    const own = PoseMap.#counts(poses), other = this.other ? PoseMap.#counts(this.other) : new Map();
    const [w, h] = [width / (2 * ACROSS), height / (2 * DOWN)], most = Math.max(...own.values(), 1), lacking = [];
    context.clearRect(0, 0, width, height);
    for (let x = -ACROSS; x < ACROSS; x++) {
      for (let y = -DOWN; y < DOWN; y++) {
        const cell = String([x, y]), [left, top] = [(x + ACROSS) * w, (y + DOWN) * h];
        const [mine, theirs] = [own.get(cell) ?? 0, other.get(cell) ?? 0];
        context.globalAlpha = mine ? 0.18 + 0.82 * Math.log1p(mine) / Math.log1p(most) : 0;
        context.fillStyle = color("--accent");
        context.fillRect(left + 1, top + 1, w - 2, h - 2);
        context.globalAlpha = 1;
        if (theirs) {
          const lacks = theirs >= ENOUGH && !mine;
          if (lacks) lacking.push([theirs, x, y]);
          context.strokeStyle = color(lacks ? "--bad" : "--warm");
          context.lineWidth = lacks ? 4 : 2;
          context.strokeRect(left + 4, top + 4, w - 8, h - 8);
        }
        if (chosen && String(chosen) === cell) {
          context.strokeStyle = color("--text");
          context.lineWidth = 4;
          context.strokeRect(left + 1, top + 1, w - 2, h - 2);
        }
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
