/* Small pieces of the page. Whatever came over the network is put on it as text, never as markup. */

export const $ = (id) => document.getElementById(id);

export const PLAY = "M8 5v14l11-7z";
export const PAUSE = "M6 5h4v14H6zm8 0h4v14h-4z";

/** An element with properties, attributes (`aria`), data and children. */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  const { dataset, aria, ...rest } = options;
  Object.assign(made, rest);
  Object.assign(made.dataset, dataset);
  for (const [name, value] of Object.entries(aria ?? {})) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

export const button = (className, text, act, aria) => {
  const made = element("button", { type: "button", className, aria }, text);
  made.addEventListener("click", act);
  return made;
};

export function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(svg.namespaceURI, "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

/** "Jazz" of "genre:Jazz". */
export const short = (label) => label.slice(label.indexOf(":") + 1) || label;

/** "genre" of "genre:Jazz"; "" where there is none. */
export const facet = (label) => (label.includes(":") ? label.slice(0, label.indexOf(":")) : "");

/** A number with its noun: 1 track, 2,000 tracks. */
export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export const nameOf = (track) => track.title || track.track_id;

export const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

/** The canvas's 2D context in CSS pixels, cleared, as sharp as the screen. */
export function paper(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return { pen, width, height };
}

/** A colour of the style sheet, of the theme that is on. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
