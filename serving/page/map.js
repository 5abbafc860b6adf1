/* The map: the catalogue as points to wander among. Drag and pinch or wheel move it; a click plays; arrows walk. */

import { getMap } from "./api.js";
import { $, button, colour, counted, element, nameOf, paper, short } from "./dom.js";

const HUES = [340, 28, 205, 140, 270, 50, 180, 0, 235, 95, 310, 160];
const REACH_PX = 16;
const CLICK_PX = 5; // a pointer that moves farther drags
const MAX_ZOOM = 40;
const canvas = $("chart");
const view = { zoom: 1, x: 0, y: 0 }; // the middle of the picture, in the map's own coordinates
const pointers = new Map();
let points = [];
let hues = new Map();
let found = new Set(); // the hits of the last search
let chosen = null;
let hovered = null;
let only = null; // the one label that is shown in colour
let moved = 0;
let acts = {};
let asked = null;

export function watchMap(actions) {
  acts = actions;
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("keydown", key);
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-all").addEventListener("click", showAll);
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Fetch the map when it is first looked at. */
export async function openMap() {
  try {
    asked ??= getMap();
    const answer = await asked;
    if (!points.length) take(answer);
  } catch (error) {
    asked = null;
    $("map-card").textContent = error.message;
  }
  draw();
}

/** Ring the hits of a search. */
export function markFound(ids) {
  found = new Set(ids);
  draw();
}

function take({ points: drawn, facet }) {
  points = drawn;
  const counts = new Map();
  for (const { label } of points) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  const labels = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, HUES.length);
  hues = new Map(labels.map((label, i) => [label, HUES[i]]));
  $("map-words").textContent = points.length
    ? `${counted(points.length, "track")}; near ones tend to sound alike${facet ? `. Colours: ${facet}` : ""}.`
    : "There are no tracks yet.";
  $("legend").replaceChildren(
    ...labels.map((label) => {
      const dot = element("i", { className: "dot" });
      dot.style.setProperty("--hue", hues.get(label));
      const chip = button("chip", dot, () => {
        only = only === label ? null : label;
        for (const other of $("legend").children) other.setAttribute("aria-pressed", String(other === chip && only === label));
        draw();
      });
      chip.append(short(label));
      chip.setAttribute("aria-pressed", "false");
      return chip;
    }),
  );
}

/* ---- where things are ---- */

const unit = () => (Math.min(canvas.clientWidth, canvas.clientHeight) / 2.15) * view.zoom;
const onScreen = ({ x, y }) => [canvas.clientWidth / 2 + (x - view.x) * unit(), canvas.clientHeight / 2 - (y - view.y) * unit()];

function nearest(x, y) {
  let best = null;
  let least = REACH_PX ** 2;
  for (const point of points) {
    const [px, py] = onScreen(point);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < least) [best, least] = [point, away];
  }
  return best;
}

/** Zoom so that what is under (x, y), by default the middle, stays there. */
function zoom(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = unit();
  view.zoom = Math.min(MAX_ZOOM, Math.max(0.8, view.zoom * by));
  const change = 1 / before - 1 / unit();
  view.x += (x - canvas.clientWidth / 2) * change;
  view.y -= (y - canvas.clientHeight / 2) * change;
  draw();
}

function showAll() {
  Object.assign(view, { zoom: 1, x: 0, y: 0 });
  draw();
}

function choose(point) {
  chosen = point;
  const title = element("strong", { textContent: nameOf(point) });
  const under = [point.artist, point.label && short(point.label)].filter(Boolean).join(" · ");
  const more = button("link", "More like this", () => acts.more(point), { label: `More like ${nameOf(point)}` });
  $("map-card").replaceChildren(title, element("span", { textContent: under }), more);
  draw();
}

/* ---- pointers and keys ---- */

const place = (event) => [event.offsetX, event.offsetY];

function down(event) {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  if (pointers.size === 1) moved = 0;
}

function move(event) {
  const to = place(event);
  const from = pointers.get(event.pointerId);
  if (!from) return hover(nearest(...to));
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  const away = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
  if (other) zoom(away(to) / away(from), ...other);
  moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (!other && moved > CLICK_PX) {
    view.x -= (to[0] - from[0]) / unit();
    view.y += (to[1] - from[1]) / unit();
    hovered = null;
    draw();
  }
  pointers.set(event.pointerId, to);
  return undefined;
}

function up(event) {
  pointers.delete(event.pointerId);
  const point = moved <= CLICK_PX && nearest(...place(event));
  if (!point) return;
  choose(point);
  acts.play(point);
}

function wheel(event) {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), ...place(event));
}

function hover(point) {
  if (point === hovered) return;
  hovered = point;
  canvas.classList.toggle("over", Boolean(point));
  draw();
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function key(event) {
  const way = WAYS[event.key];
  if (way) walk(way);
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") showAll();
  else if ((event.key === "Enter" || event.key === " ") && chosen) acts.play(chosen);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** To the nearest track that way; what lies aside counts double. */
function walk([wx, wy]) {
  const from = chosen ?? view;
  const cost = (to) => {
    const along = (to.x - from.x) * wx + (to.y - from.y) * wy;
    const aside = Math.abs((to.x - from.x) * wy) + Math.abs((to.y - from.y) * wx);
    return along > 0 && aside <= 2 * along ? along + 2 * aside : Infinity;
  };
  const next = points.reduce((best, to) => (cost(to) < cost(best) ? to : best), from);
  if (next === from) return;
  const [x, y] = onScreen(next);
  if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) Object.assign(view, { x: next.x, y: next.y });
  choose(next);
}

/* ---- drawing ---- */

function draw() {
  if (!canvas.clientWidth) return; // the other view is open
  const { pen, width, height } = paper(canvas);
  const light = matchMedia("(prefers-color-scheme: dark)").matches ? 64 : 46;
  const size = Math.min(9, 3 * Math.sqrt(view.zoom));
  for (const point of points) {
    const [x, y] = onScreen(point);
    if (x < -size || y < -size || x > width + size || y > height + size) continue;
    const isShown = !only || point.label === only;
    pen.globalAlpha = isShown ? 0.85 : 0.15;
    pen.fillStyle = hues.has(point.label) && isShown ? `hsl(${hues.get(point.label)} 65% ${light}%)` : colour("wave");
    dot(pen, x, y, size);
    pen.fill();
    if (found.has(point.track_id)) ring(pen, x, y, size + 3, "ink", 1.5);
  }
  pen.globalAlpha = 1;
  if (chosen) ring(pen, ...onScreen(chosen), size + 5, "accent", 3);
  if (hovered) {
    ring(pen, ...onScreen(hovered), size + 3, "ink", 2);
    name(pen, hovered, width);
  }
}

function dot(pen, x, y, size) {
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
}

function ring(pen, x, y, size, paint, thick) {
  pen.strokeStyle = colour(paint);
  pen.lineWidth = thick;
  dot(pen, x, y, size);
  pen.stroke();
}

function name(pen, point, width) {
  const words = [nameOf(point), point.label && short(point.label)].filter(Boolean).join(" · ").slice(0, 60);
  pen.font = "600 14px system-ui, sans-serif";
  const wide = pen.measureText(words).width + 16;
  const [x, y] = onScreen(point);
  const left = Math.max(4, Math.min(x - wide / 2, width - wide - 4));
  const top = y > 50 ? y - 44 : y + 18;
  pen.fillStyle = colour("ink");
  pen.beginPath();
  pen.roundRect(left, top, wide, 28, 8);
  pen.fill();
  pen.fillStyle = colour("back");
  pen.fillText(words, left + 8, top + 19);
}
