// Lines over the last minute, on a canvas.

import { bytes, percent, short, time, whole } from "./format.js";
import { SPAN } from "./last_minute.js";

const COLORS = {
  asked: "--asked", called: "--called", errors: "--errors", saved: "--saved", p50: "--held", p99: "--slow",
  flights: "--held", waiters: "--held", buffered: "--held",
};
/* Where there are but a few colours. */
const DASHES = { called: [7, 4], errors: [2, 3], p99: [7, 4] };
const few = matchMedia("(forced-colors: active)");

/* The least of the numbers that make a good end of an axis. */
function ceiling(n, unit) {
  if (unit === "B") return 2 ** Math.ceil(Math.log2(Math.max(n, 1024)));
  const least = unit === "ms" ? .1 : 2, wanted = Math.max(n * 1.04, least);
  const ten = 10 ** Math.floor(Math.log10(wanted));
  const ends = [1, 1.2, 1.6, 2, 2.4, 3, 3.6, 4, 5, 6, 8, 10, 12, 16, 20].map(step => Math.round(step * ten * 10) / 10);
  // Half of it is a number of the axis, too; of what is counted there are no halves.
  return ends.find(end => end >= wanted && (unit !== "" || end % 2 === 0));
}

const LABELS = { B: bytes, ms: time, "%": v => whole(v) + " %", "/s": (v, top) => short(v, top) + "/s", "": short };
const EXACT = { B: bytes, ms: time, "%": percent, "/s": v => whole(v) + "/s", "": whole };

/* Draws `canvas` as it is at the time `now`, which has the name `end`; `pointer`: how far from its left edge somebody
   points, or null. */
export function draw(canvas, points, now, end, pointer) {
  const { unit = "", max, lines } = canvas.dataset;
  const W = canvas.clientWidth, H = canvas.clientHeight, scale = devicePixelRatio || 1, g = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
  const [w, h] = [W, H].map(side => Math.round(side * scale));
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, W, H);
  g.font = "11px system-ui, 'DejaVu Sans', sans-serif";

  const seen = points.filter(p => now - p.at <= SPAN);
  // A line of errors where there are none would alarm.
  const names = lines.split(" ").filter(name => name !== "errors" || seen.some(p => p.errors));
  const top = +max || ceiling(Math.max(0, ...seen.flatMap(p => names.map(name => p[name] ?? 0))), unit);
  const ticks = [0, top / 2, top], label = v => LABELS[unit](v, top);
  const L = Math.ceil(Math.max(...ticks.map(v => g.measureText(label(v)).width))) + 8, T = 8, B = H - 18, R = W - 2;
  const x = at => R - (now - at) / SPAN * (R - L), y = v => B - Math.min(v / top, 1) * (B - T);

  g.lineWidth = 1; g.textBaseline = "middle"; g.textAlign = "right";
  for (const v of ticks) {
    const at = Math.round(y(v)) + .5;
    g.fillStyle = color("--soft"); g.fillText(label(v), L - 6, at);
    g.globalAlpha = few.matches ? .4 : 1;
    g.strokeStyle = color("--line"); g.beginPath(); g.moveTo(L, at); g.lineTo(R, at); g.stroke();
    g.globalAlpha = 1;
  }
  g.fillStyle = color("--soft"); g.textBaseline = "alphabetic";
  g.textAlign = "left"; g.fillText("60 s ago", L, H - 3);
  g.textAlign = "right"; g.fillText(end, R, H - 3);

  g.save(); g.beginPath(); g.rect(L, 0, R - L + 2, H); g.clip();
  for (const name of names) {
    g.setLineDash(few.matches ? DASHES[name] ?? [] : []);
    // A line breaks where nothing is known.
    let path = null, start = 0, last = 0;
    const finish = () => {
      if (!path) return;
      const area = new Path2D(path); area.lineTo(last, B); area.lineTo(start, B);
      g.fillStyle = g.strokeStyle = color(COLORS[name]); g.globalAlpha = few.matches ? 0 : .12; g.fill(area);
      g.globalAlpha = 1; g.lineWidth = few.matches && name === "errors" ? 5 : 2; g.lineJoin = "round"; g.stroke(path);
      path = null;
    };
    for (const p of points) {
      if (p[name] === null) { finish(); continue; }
      if (path) path.lineTo(last = x(p.at), y(p[name])); else (path = new Path2D()).moveTo(start = last = x(p.at), y(p[name]));
    }
    finish();
  }
  g.restore();
  if (pointer !== null && pointer >= L) readOut(g, { L, T, B, R, x, color }, points, names, EXACT[unit], now - (R - pointer) / (R - L) * SPAN);
}

/* The values at one time, as a label at the top. */
function readOut(g, { L, T, B, R, x, color }, points, names, exact, at) {
  const near = points.reduce((a, b) => Math.abs(b.at - at) < Math.abs(a.at - at) ? b : a, { at: -Infinity });
  if (Math.abs(near.at - at) > 1e3) return;
  const text = names.map(name => near[name] === null ? "–" : exact(near[name])).join("  ·  ");
  const width = g.measureText(text).width + 12, left = Math.min(Math.max(x(near.at) - width / 2, L), R - width);
  g.strokeStyle = color("--soft"); g.lineWidth = 1; g.beginPath(); g.moveTo(x(near.at), T); g.lineTo(x(near.at), B); g.stroke();
  g.fillStyle = color("--ink"); g.beginPath(); g.roundRect(left, T, width, 19, 5); g.fill();
  g.fillStyle = color("--card"); g.textAlign = "left"; g.textBaseline = "middle"; g.fillText(text, left + 6, T + 10);
}
