/* The endpoint as the page sees it: answers or one sentence of what went wrong, and the API key where it wants one. */

import { $ } from "./dom.js";

const KEY = "mulan-key"; // in sessionStorage: gone with the tab
const HOME = new URL("..", import.meta.url); // this file is page/api.js of the endpoint, under whatever path a proxy shows it
let asking = null;

export class EndpointError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Ask the person for a key, once for all requests that wait; false if they will not give one. */
function wantKey(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return Promise.resolve(true); // another request got a new one
  asking ??= new Promise((resolve) => {
    $("key-words").textContent = refused ? "That key is not in use. Try another one." : "This endpoint asks for an API key.";
    $("key-value").value = "";
    $("key").returnValue = "";
    $("key").addEventListener(
      "close",
      () => {
        asking = null;
        const given = $("key").returnValue === "use" ? $("key-value").value.trim() : "";
        // What no header may hold is no key.
        const usable = /^[\x21-\x7e]+$/.test(given);
        if (usable) sessionStorage.setItem(KEY, given);
        resolve(usable);
      },
      { once: true },
    );
    $("key").showModal();
  });
  return asking;
}

/** The address of something of the endpoint's, as this browser reaches it. */
export const at = (path) => new URL(path, HOME).href;

/** What an answer that is not the endpoint's own means: a proxy gave it. */
function byProxy(status) {
  if (status === 413) return "The file is too large for the server in front of the endpoint.";
  if ([502, 503, 504].includes(status)) return "The server in front of the endpoint does not reach it. Is it still running?";
  return `The endpoint answered ${status}.`;
}

async function send(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(at(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new EndpointError("down", "The endpoint does not answer. Is it still running?");
  }
  if (response.ok) return response;
  // Only where a key would help does the answer say how to give one.
  if (response.status === 401 && response.headers.has("WWW-Authenticate") && (await wantKey(key))) return send(path, options);
  const { error } = (await response.json().catch(() => null)) ?? {};
  throw new EndpointError(error?.code, error?.message ?? byProxy(response.status));
}

const getJson = async (path) => (await send(path)).json();

async function postJson(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await send(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

async function postAudio(path, file, fields) {
  const form = new FormData();
  form.append("audio", file, "audio");
  for (const [name, value] of Object.entries(fields)) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  return (await send(path, { method: "POST", body: form })).json();
}

export const getRelease = () => getJson("v1/release");
export const getMap = () => getJson("v1/map");
export const getTrack = (id) => getJson(`v1/tracks/${encodeURIComponent(id)}`);
export const tagTrack = (id) => postJson("v1/tag", { track_id: id });
export const tagFile = (file) => postAudio("v1/tag", file, {});
export const sendChoice = (requestId, id) => postJson("v1/feedback", { request_id: requestId, track_id: id });

/** A search: `text`, `track` or `file`, with `not` (words to be away from), `labels`, `k` and `offset`. */
export function search({ text, track, file, not, labels, k, offset }) {
  const fields = { k, offset };
  if (not) fields.negative_text = not;
  if (labels.length) fields.filter = { labels };
  if (file) return postAudio("v1/search", file, fields);
  return postJson("v1/search", track ? { ...fields, track_id: track.track_id } : { ...fields, text });
}

const audioOf = (track) => `v1/tracks/${encodeURIComponent(track.track_id)}/audio`;

/** The bytes of a track's audio, or null where they are more than `most`. */
export async function getAudio(track, signal, most = Infinity) {
  const response = await send(audioOf(track), { signal });
  if (Number(response.headers.get("Content-Length")) <= most) return response.blob();
  await response.body.cancel();
  return null;
}

/** What an audio element may play: it cannot send a key, so with one the audio is fetched first. */
export async function playable(track, signal) {
  return sessionStorage.getItem(KEY) ? URL.createObjectURL(await getAudio(track, signal)) : at(audioOf(track));
}
