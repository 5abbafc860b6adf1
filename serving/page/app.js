/* The search page: what is asked for, its address, and what keys, files and the microphone do. */

import { EndpointError, at, getRelease, getTrack, search, sendChoice, tagFile } from "./api.js";
import { RECORD_S, record } from "./audio.js";
import { $, button, counted, element, facet, nameOf, short } from "./dom.js";
import { markFound, openMap, watchMap } from "./map.js";
import { close, play, playing, toggle, watchPlayer } from "./player.js";
import { closeTags, markPlaying, row, step, tagBars, toggleTags } from "./results.js";
import { inWords } from "./words.js";

const K = 20;
const OFFERED = 12; // labels of a facet before "all"
const BLANK = { text: "", track: null, file: null, not: "", labels: [] };
let query = BLANK;
let answer = null; // of the search on the page
let address = null; // the part of it that was last shown; a change of view alone asks nothing
let turn = 0;
let takesFeedback = false;
let recording = null;

/* ---- asking ---- */

/** Search for something else, keeping what is not named; the address says what, so that Back works. */
function ask(change) {
  query = { ...query, ...change };
  const parameters = new URLSearchParams();
  if (query.text) parameters.set("q", query.text);
  if (query.track) parameters.set("like", query.track.track_id);
  if (query.not) parameters.set("not", query.not);
  for (const label of query.labels) parameters.append("label", label);
  history.pushState(null, "", at(`${parameters}` ? `?${parameters}` : ""));
  address = location.search;
  showQuery();
  run();
}

const askText = (text) => text.trim() && ask({ text: text.trim(), track: null, file: null, not: $("not").value.trim() });

/** Run the search and show it; an older answer that comes late is dropped. */
async function run(offset = 0) {
  const mine = ++turn;
  showView();
  closeTags();
  if (!query.text && !query.track && !query.file) return;
  $("results").classList.add("busy");
  setStatus("Searching…");
  try {
    const came = await search({ ...query, k: K, offset });
    if (mine === turn) show(came, offset);
  } catch (error) {
    if (!(error instanceof EndpointError)) throw error;
    if (mine !== turn) return;
    if (!offset) clear();
    setStatus(inWords(error, query.file), true);
  } finally {
    if (mine === turn) $("results").classList.remove("busy");
  }
}

/** Tell the query log, where there is one, which hit was the one. */
function choose(track) {
  if (takesFeedback && answer?.hits.some((hit) => hit.track_id === track.track_id)) {
    sendChoice(answer.request_id, track.track_id).catch(() => {}); // nobody waits for it
  }
}

function askLike(track) {
  ask({ text: "", track, file: null });
  scrollTo({ top: 0 });
  $("results").focus({ preventScroll: true }); // what had the focus is gone
}

/** What a row can do. */
const acts = {
  play(hit) {
    if (playing().id !== hit.track_id) choose(hit);
    play(hit);
  },
  more(hit) {
    choose(hit);
    askLike(hit);
  },
  search: (text) => askText(text),
  filter: (label) => query.labels.includes(label) || ask({ labels: [...query.labels, label] }),
};

/* ---- showing ---- */

function setStatus(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

function clear() {
  answer = null;
  $("results").replaceChildren();
  $("verdict").hidden = $("next").hidden = true;
  markFound([]);
}

function show(came, offset) {
  const { hits, timing_ms: timing, no_good_match: isBad, next_offset: next } = came;
  const stages = Object.entries(timing).filter(([name, ms]) => name !== "total" && ms > 0);
  const times = stages.map(([name, ms]) => `${name} ${ms.toFixed(0)}`).join(", ");
  const all = offset ? [...answer.hits, ...hits] : hits;
  answer = { ...came, hits: all };
  setStatus(`${counted(all.length, "track")} in ${timing.total.toFixed(0)} ms (${times})`);
  const rows = hits.map((hit) => row(hit, acts, isBad));
  if (offset) $("results").append(...rows);
  else $("results").replaceChildren(...rows);
  $("verdict").hidden = !isBad || !all.length;
  if (!all.length) {
    const words = query.labels.length ? "No track carries all of these labels. Remove one above." : "No tracks found.";
    $("results").append(element("li", { className: "empty", textContent: words }));
  }
  if (next === null && came.has_more) {
    const words = `These are the first ${all.length.toLocaleString("en")} tracks, and there are more. Narrow the search by other words or a label to see them.`;
    $("results").append(element("li", { className: "empty", textContent: words }));
  }
  $("next").hidden = next === null;
  $("next").onclick = () => run(next);
  markFound(all.map((hit) => hit.track_id));
  showRelease(came.release);
  markPlaying();
  if (offset) rows[0]?.focus();
}

/** What is asked for beside the words: a track or a file, and filters; each a chip that takes it away. */
function showQuery() {
  const chips = query.labels.map((label) =>
    button("chip on", `${short(label)} ×`, () => ask({ labels: query.labels.filter((other) => other !== label) }), {
      label: `Remove the filter ${label}`,
    }),
  );
  const like = query.track ? nameOf(query.track) : query.file?.name;
  if (like) {
    const drop = () => {
      clear();
      setStatus("");
      ask({ track: null, file: null });
    };
    chips.unshift(button("chip on", `Like “${like}” ×`, drop, { label: `No longer like ${like}` }));
  }
  if (query.not && query.not !== $("not").value.trim()) $("not").value = query.not;
  if (query.file) chips.push(button("chip", "Tags of this file", showFileTags));
  $("query").value = query.text;
  $("asked").replaceChildren(...chips);
  for (const chip of document.querySelectorAll("#labels .chip[data-label]")) {
    chip.setAttribute("aria-pressed", String(query.labels.includes(chip.dataset.label)));
  }
}

async function showFileTags() {
  closeTags();
  try {
    const { labels } = await tagFile(query.file);
    const view = element("ul", { className: "tagview", aria: { label: "What the model hears in the file" } }, ...tagBars(labels, acts));
    $("asked").after(view);
  } catch (error) {
    setStatus(inWords(error, query.file), true);
  }
}

function showRelease(release, count) {
  if (count !== undefined) $("release").dataset.count = count;
  const { count: kept } = $("release").dataset;
  $("release").textContent = `Release ${release.model_version} · ${release.collection} · ${kept === undefined ? "… tracks" : counted(Number(kept), "track")}`;
}

/** Whose tracks these are: two catalogues may be open side by side. */
function nameCatalogue(name) {
  $("catalogue").textContent = name;
  $("catalogue").hidden = !name;
  if (name) document.title = `${name} · ${document.title}`;
}

/** The catalogue's labels by facet, the most frequent first. */
function offerLabels(labels) {
  const facets = Map.groupBy?.(labels, facet) ?? new Map([["", labels]]);
  for (const [name, of] of facets) {
    const chips = of.map((label) => {
      const flip = () => ask({ labels: query.labels.includes(label) ? query.labels.filter((other) => other !== label) : [...query.labels, label] });
      const chip = button("chip", short(label), flip);
      chip.dataset.label = label;
      return chip;
    });
    const group = element("div", { className: "row", role: "group", aria: { label: name || "label" } }, element("span", { className: "facet", textContent: name || "label" }));
    group.append(...chips.slice(0, OFFERED));
    if (chips.length > OFFERED) {
      const all = button("link", `${chips.length - OFFERED} more`, () => all.replaceWith(...chips.slice(OFFERED)));
      group.append(all);
    }
    $("labels").append(group);
  }
  $("labels").hidden = !labels.length;
  showQuery();
}

function showView() {
  const isMap = location.hash === "#map";
  $("search-view").hidden = isMap;
  $("map-view").hidden = !isMap;
  for (const [id, isHere] of [["to-search", !isMap], ["to-map", isMap]]) {
    if (isHere) $(id).setAttribute("aria-current", "page");
    else $(id).removeAttribute("aria-current");
  }
  if (isMap) openMap();
}

/** Do what the address says: at the start, and when someone goes back. */
async function readAddress() {
  showView();
  if (location.search === address) return;
  address = location.search;
  const parameters = new URLSearchParams(location.search);
  const like = parameters.get("like");
  const next = { ...BLANK, text: parameters.get("q") ?? "", not: parameters.get("not") ?? "", labels: parameters.getAll("label") };
  if (like) next.track = await getTrack(like).then((found) => found.track, () => ({ track_id: like }));
  query = next;
  $("not").value = query.not;
  showQuery();
  run();
}

/* ---- audio queries ---- */

const askFile = (file) => ask({ text: "", track: null, file });

async function toggleRecording() {
  if (recording) return recording.stop();
  try {
    recording = await record();
  } catch {
    return setStatus("The microphone is not available: the browser gives it to https and localhost only, and asks you first.", true);
  }
  $("record").setAttribute("aria-pressed", "true");
  setStatus(`Listening… press again to search (at most ${RECORD_S} s)`);
  try {
    askFile(Object.assign(new File([await recording.done], "your recording"), { isRecorded: true }));
  } catch {
    setStatus("The recording could not be read.", true);
  } finally {
    recording = null;
    $("record").setAttribute("aria-pressed", "false");
  }
  return undefined;
}

function watchFiles() {
  $("record").addEventListener("click", toggleRecording);
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) askFile(file);
    $("file").value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("box").classList.add("drop");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? $("box").classList.remove("drop"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("box").classList.remove("drop");
    const [file] = event.dataTransfer.files;
    if (file) askFile(file);
  });
}

/* ---- keys ---- */

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("key").open) return;
  const { target } = event;
  const isTyping = target.matches("input:not([type=range])");
  const hit = target.closest(".hit")?.hit;
  const onRow = target.matches(".hit") ? target : null;
  if (event.key === "/" && !isTyping) {
    if (location.hash) location.hash = "";
    $("query").focus();
    $("query").select();
  } else if (event.key === "Escape") {
    if (!closeTags() && !close()) $("query").focus();
  } else if (event.key === "ArrowDown" && (hit || target === $("query") || target === $("results"))) step(1);
  else if (event.key === "ArrowUp" && hit) step(-1);
  else if (event.key === "Enter" && onRow) acts.more(hit);
  else if (event.key === "t" && onRow) toggleTags(onRow, hit, acts);
  else if (event.key === " " && onRow) acts.play(hit);
  else if (event.key === " " && target === document.body) toggle();
  else return;
  event.preventDefault();
}

/* ---- start ---- */

$("no-script").remove();
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const not = $("not").value.trim();
  if ($("query").value.trim()) askText($("query").value);
  else if (query.track || query.file) ask({ not });
});
for (const chip of $("examples").children) chip.addEventListener("click", () => askText(chip.textContent));
addEventListener("keydown", onKey);
addEventListener("popstate", readAddress);
watchFiles();
watchPlayer(markPlaying, (words) => setStatus(words, true));
watchMap({ play, more: askLike });
getRelease()
  .then((release) => {
    takesFeedback = release.takes_feedback;
    nameCatalogue(release.catalogue);
    showRelease(release, release.num_tracks);
    offerLabels(release.labels);
  })
  .catch((error) => setStatus(error.message, true));
readAddress();
