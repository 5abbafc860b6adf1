/* What went wrong, in words for someone who listens. The endpoint's own sentences are for programs too. */

const OF_A_RECORDING = {
  audio_silent: "Nothing was heard. Is the microphone on?",
  audio_empty: "Nothing was heard. Is the microphone on?",
  audio_too_short: "That was too short. Let it listen a little longer.",
  audio_undecodable: "The recording could not be read.",
};
const OF_A_FILE = {
  audio_silent: "Nothing can be heard in this file.",
  audio_empty: "This file is empty.",
  audio_too_short: "This file is too short to tell anything from.",
  audio_undecodable: "This file cannot be read as audio.",
};

/** The sentence for an `EndpointError`; `file` is what was searched with, if it was a file. */
export function inWords({ code, message }, file) {
  if (code === "invalid" && message.startsWith("filter.")) return "There is no such label. Remove it above.";
  const known = file?.isRecorded ? OF_A_RECORDING : OF_A_FILE;
  return (file && known[code]) ?? message;
}
