/* The player at the foot of the page: one track at a time, its waveform, and in it the window that matched. */

import { EndpointError, getAudio, playable } from "./api.js";
import { outline } from "./audio.js";
import { $, PAUSE, PLAY, clock, colour, nameOf, paper } from "./dom.js";

const PEAKS = 400;
const MAX_DRAWN_BYTES = 30e6; // larger files play without a waveform: it would cost all of their bytes
const audio = $("audio");
let track = null;
let peaks = null;
let refused = null; // why the endpoint does not hand the track out, in its words
let loading = null; // of the track on its way; aborted when another one is wanted
let changed = () => {};
let failed = () => {};

/** The id of the track in the player, and whether it runs. */
export const playing = () => ({ id: track?.track_id ?? null, isRunning: !audio.paused });

export function watchPlayer(onChange, onError) {
  changed = onChange;
  failed = onError;
  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, show);
  audio.addEventListener("timeupdate", showTime);
  audio.addEventListener("loadedmetadata", draw);
  audio.addEventListener("error", () => track && failed(refused ?? "This track cannot be played here."));
  $("seek").addEventListener("input", () => {
    if (audio.duration) audio.currentTime = ($("seek").value / 1000) * audio.duration;
  });
  $("toggle").addEventListener("click", toggle);
  new ResizeObserver(draw).observe($("wave"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Play a track from the start of its matching window, where it has one; the same track again pauses. */
export async function play(wanted) {
  if (!wanted.audio_url) return failed(`There is no audio of “${nameOf(wanted)}” here.`);
  if (track?.track_id === wanted.track_id) return toggle();
  close();
  track = wanted;
  loading = new AbortController();
  const { signal } = loading;
  $("now-title").textContent = nameOf(track);
  $("now-artist").textContent = track.artist;
  $("player").hidden = false;
  show();
  try {
    const source = await playable(track, signal);
    if (signal.aborted) return undefined;
    audio.src = source;
    if (track.start_s) audio.currentTime = track.start_s;
    audio.play().catch(() => {}); // the error event says why
    const bytes = await getAudio(track, signal, MAX_DRAWN_BYTES);
    const drawn = bytes && (await outline(bytes, PEAKS));
    if (!signal.aborted) peaks = drawn;
    draw();
  } catch (error) {
    if (signal.aborted) return undefined;
    if (error instanceof EndpointError) refused = error.message;
    if (refused || !audio.src) failed(error.message); // without a waveform it still plays
  }
  return undefined;
}

export function toggle() {
  if (!track) return;
  if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

/** Stop, and put the player away; false if there was nothing to stop. */
export function close() {
  if (!track) return false;
  loading?.abort();
  audio.pause();
  if (audio.src.startsWith("blob:")) URL.revokeObjectURL(audio.src);
  track = peaks = refused = null;
  audio.removeAttribute("src");
  $("player").hidden = true;
  changed();
  return true;
}

function show() {
  const isRunning = !audio.paused;
  $("toggle").querySelector("path").setAttribute("d", isRunning ? PAUSE : PLAY);
  $("toggle").querySelector("span").textContent = isRunning ? "Pause" : "Play";
  showTime();
  changed();
}

function showTime() {
  const { currentTime: at, duration } = audio;
  $("seek").value = duration ? (1000 * at) / duration : 0;
  $("seek").setAttribute("aria-valuetext", clock(at));
  $("time").textContent = duration ? `${clock(at)} / ${clock(duration)}` : clock(at);
  draw();
}

function draw() {
  const { pen, width, height } = paper($("wave"));
  const { duration } = audio;
  const at = duration ? audio.currentTime / duration : 0;
  if (duration && track?.end_s) {
    pen.fillStyle = colour("window");
    pen.fillRect((track.start_s / duration) * width, 0, ((track.end_s - track.start_s) / duration) * width, height);
  }
  const bars = Math.max(1, Math.floor(width / 3));
  for (let i = 0; i < bars; i++) {
    const peak = peaks ? peaks[Math.floor((i * PEAKS) / bars)] : 0;
    const tall = Math.max(2, peak * (height - 4));
    pen.fillStyle = colour((i + 0.5) / bars <= at ? "accent" : "wave");
    pen.fillRect(i * 3, (height - tall) / 2, 2, tall);
  }
}
