/* The search page. Everything that came over the network is put on the page as text, never as markup. */
"use strict";

const $ = (id) => document.getElementById(id);
const PLAY = "M8 5v14l11-7z";
const PAUSE = "M6 5h4v14H6zm8 0h4v14h-4z";
const K = 20;
const state = { asked: 0, filters: [], again: null, playing: null, recording: null };

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  const { dataset, ...rest } = options;
  Object.assign(made, rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(svg.namespaceURI, "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

/* ---- asking ---- */

class EndpointError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new EndpointError("down", "The endpoint does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  throw new EndpointError(answer?.error?.code, answer?.error?.message ?? `The endpoint answered ${response.status}.`);
}

function postJson(query) {
  const filter = state.filters.length ? { labels: state.filters } : undefined;
  const body = JSON.stringify({ ...query, k: K, filter });
  return ask("/v1/search", { method: "POST", headers: { "Content-Type": "application/json" }, body });
}

async function postAudio(file) {
  const send = (audio) => {
    const form = new FormData();
    form.append("audio", audio, "audio");
    form.append("k", K);
    if (state.filters.length) form.append("filter", JSON.stringify({ labels: state.filters }));
    return ask("/v1/search", { method: "POST", body: form });
  };
  try {
    return await send(file);
  } catch (error) {
    if (error.code !== "audio_undecodable") throw error;
    const wav = await toWav(file).catch(() => null); // the browser may know the format
    if (!wav) throw error;
    return send(wav);
  }
}

/** Run a search and show it; an older answer that comes late is dropped. */
async function search(what, request) {
  const turn = ++state.asked;
  state.again = () => search(what, request);
  $("results").classList.add("busy");
  setStatus("Searching…");
  try {
    const answer = await request();
    if (turn === state.asked) show(what, answer);
  } catch (error) {
    if (turn !== state.asked) return;
    $("results").replaceChildren();
    setStatus(error.message, true);
  } finally {
    if (turn === state.asked) $("results").classList.remove("busy");
  }
}

function searchText(text) {
  text = text.trim();
  if (!text) return;
  $("query").value = text;
  history.replaceState(null, "", `?q=${encodeURIComponent(text)}`);
  search(`“${text}”`, () => postJson({ text }));
}

function searchTrack(hit) {
  history.replaceState(null, "", "/");
  $("query").value = "";
  scrollTo({ top: 0, behavior: "smooth" });
  search(`tracks like “${hit.title || hit.track_id}”`, () => postJson({ track_id: hit.track_id }));
}

function searchAudio(file, name) {
  history.replaceState(null, "", "/");
  $("query").value = "";
  search(`tracks like ${name}`, () => postAudio(file));
}

/* ---- showing ---- */

function setStatus(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

function show(what, answer) {
  const { hits, timing_ms: timing } = answer;
  const stages = Object.entries(timing).filter(([name, ms]) => name !== "total" && ms > 0);
  const parts = stages.map(([name, ms]) => `${name} ${ms.toFixed(0)}`).join(", ");
  setStatus(`${what}: ${hits.length} tracks in ${timing.total.toFixed(0)} ms (${parts})`);
  const best = Math.max(...hits.map((hit) => hit.score), 1e-6);
  $("results").replaceChildren(...hits.map((hit) => row(hit, best)));
  if (!hits.length) {
    const words = state.filters.length ? "No track carries these labels. Remove a filter above." : "No tracks found.";
    $("results").append(element("li", { className: "empty", textContent: words }));
  }
  showRelease(answer.release);
  markPlaying();
}

function row(hit, best) {
  const title = hit.title || hit.track_id;
  const play = element("button", { type: "button", className: "play", disabled: !hit.audio_url }, icon(PLAY));
  play.setAttribute("aria-label", hit.audio_url ? `Play ${title}` : `${title} has no audio here`);
  let hue = 7;
  for (const char of hit.track_id) hue = (hue * 31 + char.codePointAt(0)) % 360;
  play.style.setProperty("--hue", hue);
  play.addEventListener("click", () => playHit(hit));

  const name = element("div", { className: "name" }, element("strong", { textContent: title, title }));
  const under = [hit.artist, hit.dataset].filter(Boolean).join(" · ");
  name.append(element("span", { textContent: under || hit.track_id }));

  const fill = element("i");
  fill.style.width = `${Math.max(0, (100 * hit.score) / best)}%`;
  const score = element("div", { className: "score", title: "Cosine between the query and the track" });
  score.append(element("div", { className: "bar" }, fill), hit.score.toFixed(3));

  const tags = element("div", { className: "tags" }, ...hit.labels.slice(0, 8).map(labelChip));
  const more = element("button", { type: "button", className: "more", textContent: "More like this" });
  more.setAttribute("aria-label", `More like ${title}`);
  more.addEventListener("click", () => searchTrack(hit));
  return element("li", { className: "hit", dataset: { id: hit.track_id } }, play, name, score, tags, more);
}

const short = (label) => label.slice(label.indexOf(":") + 1) || label;

function labelChip(label) {
  const chip = element("button", { type: "button", className: "chip", textContent: short(label) });
  chip.title = `Only tracks with ${label}`;
  chip.addEventListener("click", () => {
    if (!state.filters.includes(label)) state.filters.push(label);
    filtersChanged();
  });
  return chip;
}

function filtersChanged() {
  $("filters").replaceChildren(
    ...state.filters.map((label) => {
      const chip = element("button", { type: "button", className: "chip on", textContent: `${short(label)} ×` });
      chip.setAttribute("aria-label", `Remove the filter ${label}`);
      chip.addEventListener("click", () => {
        state.filters = state.filters.filter((other) => other !== label);
        filtersChanged();
      });
      return chip;
    }),
  );
  state.again?.();
}

function showRelease(release, count) {
  const tracks = count ?? $("release").dataset.count;
  if (count !== undefined) $("release").dataset.count = count;
  $("release").textContent = `Release ${release.model_version} · ${release.collection} · ${tracks} tracks`;
}

/* ---- playing: one track at a time ---- */

function playHit(hit) {
  const audio = $("audio");
  if (state.playing === hit.track_id) {
    if (audio.paused) audio.play();
    else audio.pause();
    return;
  }
  state.playing = hit.track_id;
  $("now-title").textContent = hit.title || hit.track_id;
  $("now-artist").textContent = hit.artist;
  $("player").hidden = false;
  audio.src = hit.audio_url;
  audio.play().catch(() => {}); // the error event says why
}

function markPlaying() {
  const running = !$("audio").paused;
  for (const item of document.querySelectorAll(".hit")) {
    const mine = item.dataset.id === state.playing;
    item.classList.toggle("playing", mine);
    item.querySelector(".play path").setAttribute("d", mine && running ? PAUSE : PLAY);
  }
  $("toggle").querySelector("path").setAttribute("d", running ? PAUSE : PLAY);
  $("toggle").querySelector("span").textContent = running ? "Pause" : "Play";
}

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

function watchPlayer() {
  const audio = $("audio");
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, markPlaying);
  audio.addEventListener("timeupdate", () => {
    if (!audio.duration) return;
    $("seek").value = (1000 * audio.currentTime) / audio.duration;
    $("time").textContent = `${clock(audio.currentTime)} / ${clock(audio.duration)}`;
  });
  audio.addEventListener("error", () => setStatus("This track cannot be played here.", true));
  $("seek").addEventListener("input", () => {
    if (audio.duration) audio.currentTime = ($("seek").value / 1000) * audio.duration;
  });
  $("toggle").addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
}

/* ---- audio queries ---- */

async function toggleRecording() {
  if (state.recording) {
    state.recording.stop();
    return;
  }
  try {
    state.recording = await record();
  } catch {
    setStatus("The microphone is not available: the browser gives it to https and localhost only, and asks you first.", true);
    return;
  }
  $("record").setAttribute("aria-pressed", "true");
  setStatus(`Listening… press again to search (at most ${RECORD_S} s)`);
  try {
    searchAudio(await state.recording.done, "your recording");
  } catch {
    setStatus("The recording could not be read.", true);
  } finally {
    state.recording = null;
    $("record").setAttribute("aria-pressed", "false");
  }
}

function watchFiles() {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) searchAudio(file, `“${file.name}”`);
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
    if (file) searchAudio(file, `“${file.name}”`);
  });
}

/* ---- start ---- */

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  searchText($("query").value);
});
for (const chip of $("examples").children) chip.addEventListener("click", () => searchText(chip.textContent));
$("record").addEventListener("click", toggleRecording);
watchFiles();
watchPlayer();
ask("/v1/release")
  .then((release) => showRelease(release, release.num_tracks))
  .catch((error) => setStatus(error.message, true));
const asked = new URLSearchParams(location.search).get("q");
if (asked) searchText(asked);
