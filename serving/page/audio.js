/* Sound from the microphone, as the browser records it; and the outline of a sound, to draw. */
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

/** Record until `stop` is called on the result, at most RECORD_S; `done` resolves to a Blob of the browser's own container. */
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
      resolve(new Blob(pieces, { type: recorder.mimeType }));
    };
  });
  recorder.start();
  return { stop, done };
}
