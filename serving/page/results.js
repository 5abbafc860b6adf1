/* The list of hits: what a row shows, and its tag view. */

import { tagTrack } from "./api.js";
import { $, PAUSE, PLAY, button, clock, element, icon, nameOf, short } from "./dom.js";
import { playing } from "./player.js";

const SHOWN_LABELS = 8;
const SHOWN_TAGS = 12;
const MATCHES = [
  [0.85, "strong match"],
  [0.7, "good match"],
  [0.5, "fair match"],
  [0, "weak match"],
];

/** A row of the list.
 * `acts`: play, more, search and filter, each of what it is about.
 * `isBad`: nothing found fits, so a row says how near it is and no more.
 */
export function row(hit, acts, isBad) {
  const title = nameOf(hit);
  const play = button("play", icon(PLAY), () => acts.play(hit), {
    label: hit.audio_url ? `Play ${title}` : `${title} has no audio here`,
  });
  play.disabled = !hit.audio_url;
  let hue = 7;
  for (const char of hit.track_id) hue = (hue * 31 + char.codePointAt(0)) % 360;
  play.style.setProperty("--hue", hue);

  const name = element("div", { className: "name" }, element("strong", { textContent: title, title }));
  const under = [hit.artist, hit.dataset].filter(Boolean).join(" · ") || hit.track_id;
  name.append(element("span", { textContent: under }));

  const labels = hit.labels.slice(0, SHOWN_LABELS).map((label) => {
    const chip = button("chip", short(label), () => acts.filter(label));
    chip.title = `Only tracks with ${label}`;
    return chip;
  });
  const shown = element("div", { className: "tags" }, ...labels);
  if (hit.end_s) shown.prepend(element("span", { className: "window", textContent: `${clock(hit.start_s)}–${clock(hit.end_s)}` }));

  const tags = button("link", "Tags", () => toggleTags(item, hit, acts), { label: `Tags of ${title}`, expanded: "false" });
  tags.classList.add("tagger");
  const more = button("link more", "More like this", () => acts.more(hit), { label: `More like ${title}` });
  const links = element("div", { className: "links" }, tags, more);
  const item = element("li", { className: "hit", dataset: { id: hit.track_id }, tabIndex: -1 }, play, name, fit(hit, isBad), shown, links);
  item.hit = hit;
  return item;
}

/** How well a hit fits, in words where the release can tell, else its score. */
function fit({ match, score }, isBad) {
  const isTold = match !== null && !isBad;
  const share = isTold ? match : Math.max(0, score);
  const fill = element("i");
  fill.style.width = `${Math.round(100 * share)}%`;
  const said = isTold ? MATCHES.find(([from]) => match >= from)[1] : `score ${score.toFixed(2)}`;
  const chance = isTold ? `; ${Math.round(100 * match)} of 100 such tracks fit` : "";
  const made = element("div", { className: "fit", title: `Cosine ${score.toFixed(3)}${chance}` });
  made.append(element("div", { className: "bar" }, fill), said);
  return made;
}

/** Show or hide what the model hears in a track: its best labels, each a search of its own. */
export async function toggleTags(item, hit, acts) {
  const view = item.querySelector(".tagview");
  item.querySelector(".tagger").setAttribute("aria-expanded", String(!view));
  if (view) return view.remove();
  const made = element("ul", { className: "tagview", aria: { label: `What the model hears in ${nameOf(hit)}` } });
  item.append(made);
  try {
    made.append(...tagBars((await tagTrack(hit.track_id)).labels, acts));
  } catch (error) {
    made.append(element("li", { textContent: error.message }));
  }
  return undefined;
}

/** The best labels with bars, each a button that searches for its word. */
export function tagBars(labels, acts) {
  const best = Math.max(labels[0]?.score ?? 0, 1e-6);
  return labels.slice(0, SHOWN_TAGS).map(({ label, score }) => {
    const fill = element("i");
    fill.style.width = `${Math.max(0, Math.round((100 * score) / best))}%`;
    const bar = element("span", { className: "bar", title: `Cosine ${score.toFixed(3)}` }, fill);
    return element("li", {}, button("link", short(label), () => acts.search(short(label))), bar);
  });
}

/** Close all tag views; false if there was none. */
export function closeTags() {
  const views = document.querySelectorAll(".tagview");
  for (const view of views) {
    view.closest(".hit")?.querySelector(".tagger").setAttribute("aria-expanded", "false");
    view.remove();
  }
  return views.length > 0;
}

/** Show in the list which track is in the player. */
export function markPlaying() {
  const { id, isRunning } = playing();
  for (const item of $("results").querySelectorAll(".hit")) {
    const isMine = item.dataset.id === id;
    item.classList.toggle("playing", isMine);
    item.querySelector(".play path").setAttribute("d", isMine && isRunning ? PAUSE : PLAY);
  }
}

/** Move the focus along the list by arrow keys, from the search box into it and back. */
export function step(by) {
  const items = [...$("results").querySelectorAll(".hit")];
  const at = items.findIndex((item) => item.contains(document.activeElement));
  const next = at + by;
  if (next < 0) $("query").focus();
  else items[Math.min(next, items.length - 1)]?.focus();
}
