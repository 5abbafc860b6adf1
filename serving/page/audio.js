/* Sound from the microphone, or in a container that the endpoint does not read, as 16 kHz mono WAV. */
"use strict";

const RATE_HZ = 16000;
const RECORD_S = 15;

/** Decode what the browser can decode, and encode it as WAV. */
async function toWav(blob) {
  // A context of this rate resamples while it decodes.
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  const buffer = await context.decodeAudioData(await blob.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / buffer.numberOfChannels;
  }
  const view = new DataView(new ArrayBuffer(44 + 2 * mono.length));
  const ascii = (at, text) => [...text].forEach((char, i) => view.setUint8(at + i, char.charCodeAt(0)));
  ascii(0, "RIFF");
  view.setUint32(4, 36 + 2 * mono.length, true);
  ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE_HZ, true);
  view.setUint32(28, 2 * RATE_HZ, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  ascii(36, "data");
  view.setUint32(40, 2 * mono.length, true);
  for (let i = 0; i < mono.length; i++) view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, mono[i])), true);
  return new Blob([view], { type: "audio/wav" });
}

/** Record until `stop` is called on the result, at most RECORD_S; `done` resolves to a WAV. */
async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const timer = setTimeout(stop, RECORD_S * 1000);
  const done = new Promise((resolve) => {
    recorder.onstop = () => {
      clearTimeout(timer);
      stream.getTracks().forEach((track) => track.stop());
      resolve(new Blob(pieces));
    };
  }).then(toWav);
  recorder.start();
  return { stop, done };
}
