/* Sound: from the microphone or in a container that the endpoint does not read, as 16 kHz mono WAV; its outline to draw. */
const RATE_HZ = 16000;
export const RECORD_S = 15;

/** Decode what the browser can decode. */
async function decode(blob) {
  // A context of this rate resamples while it decodes.
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  return context.decodeAudioData(await blob.arrayBuffer());
}

/** The loudest sample of each of `count` equal parts, 0 to 1: the outline of a waveform. */
export async function outline(blob, count) {
  const samples = (await decode(blob)).getChannelData(0);
  const peaks = new Float32Array(count);
  for (let i = 0; i < samples.length; i++) {
    const at = Math.floor((i * count) / samples.length);
    peaks[at] = Math.max(peaks[at], Math.abs(samples[i]));
  }
  const loudest = peaks.reduce((a, b) => Math.max(a, b), 1e-6);
  return peaks.map((peak) => peak / loudest);
}

/** Decode what the browser can decode, and encode it as WAV. */
export async function toWav(blob) {
  const buffer = await decode(blob);
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
export async function record() {
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
