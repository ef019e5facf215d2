// Curves over minutes on a canvas.

const FEW = 12; // points of a curve that are drawn as dots, too
const COLORS = ["--a", "--b", "--a", "--b"]; // of a and of b; the second pair is dashed

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 2 || 1));
  const nice = [1, 2, 5, 10].map((factor) => factor * step).find((one) => (high - low) / one <= 6) ?? step * 10;
  const found = [];
  for (let value = Math.ceil(low / nice) * nice; value <= high + nice / 1e6; value += nice) found.push(value);
  return found;
}

// Draw series, an object of names and lists of [minute, value]; margins are half the widths of their intervals.
export function draw(canvas, legend, series, names, isLog, margins) {
  const context = canvas.getContext("2d"), { width, height } = canvas, style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name), all = Object.values(series).flat();
  context.clearRect(0, 0, width, height);
  legend.replaceChildren();
  if (!all.length) return;
  const scale = isLog ? (value) => Math.log10(Math.max(value, 1e-6)) : (value) => value;
  const widths = Object.fromEntries(Object.entries(margins).map(([name, points]) => [name, new Map(points)]));
  const ends = Object.entries(series).flatMap(([name, points]) => points.flatMap(([minute, value]) => {
    const width = widths[name]?.get(minute) ?? 0;
    return [value - width, value + width];
  }));
  const values = ends.map(scale), last = Math.max(...all.map(([minute]) => minute), 1e-3);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (high - low < 1e-3) [low, high] = [low - 0.05, high + 0.05];
  const [left, right, top, bottom] = [70, width - 40, 14, height - 40];
  const x = (minute) => left + (right - left) * minute / last;
  const y = (value) => bottom - (bottom - top) * (scale(value) - low) / (high - low);
  const band = (points, width) => {
    const known = points.filter(([minute]) => width?.has(minute));
    if (known.length < 2) return;
    context.beginPath();
    for (const [minute, value] of known) context.lineTo(x(minute), y(value + width.get(minute)));
    for (const [minute, value] of known.toReversed()) context.lineTo(x(minute), y(value - width.get(minute)));
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
  };
  const dots = (points) => {
    for (const [minute, value] of points) {
      context.beginPath();
      context.arc(x(minute), y(value), 5, 0, 2 * Math.PI);
      context.fill();
    }
  };
  context.font = "20px system-ui, sans-serif";
  context.fillStyle = color("--muted");
  context.strokeStyle = color("--line");
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of ticks(low, high)) {
    const level = bottom - (bottom - top) * (value - low) / (high - low);
    context.beginPath();
    context.moveTo(left, level);
    context.lineTo(right, level);
    context.stroke();
    context.fillText((isLog ? 10 ** value : value).toPrecision(2), left - 8, level);
  }
  context.textAlign = "center";
  for (const minute of ticks(0, last)) context.fillText(`${Number(minute.toFixed(2))} min`, x(minute), height - 18);
  Object.entries(series).forEach(([name, points], at) => {
    context.fillStyle = context.strokeStyle = color(COLORS[at % 4]);
    band(points, widths[name]);
    context.lineWidth = 3;
    context.setLineDash(at < 2 ? [] : [10, 7]);
    context.beginPath();
    for (const [minute, value] of points) context.lineTo(x(minute), y(value));
    context.stroke();
    if (points.length <= FEW) dots(points);
    const mark = document.createElement("span");
    mark.className = `${COLORS[at % 4].slice(2)}${at < 2 ? "" : " dashed"}`;
    const around = margins[name]?.at(-1)[1];
    mark.textContent = `${names[name]} ${points.at(-1)[1].toPrecision(3)}${around ? ` \u00b1 ${around.toPrecision(2)}` : ""}`;
    legend.append(mark);
  });
  context.setLineDash([]);
}
