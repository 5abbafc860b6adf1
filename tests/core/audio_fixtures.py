"""Music as files of many kinds, encoded by FFmpeg's encoders and libsndfile's, and broken in the usual ways."""

import io
import shutil
import struct
import subprocess
from functools import cache

import av
import numpy as np
import soundfile

FFMPEG = shutil.which("ffmpeg")


@cache
def music(seconds=2.5, rate_hz=44_100, channels=2, seed=0):
    """Float32 (samples, channels): chirps and noise, other ones in each channel, no two moments alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    pitches = 150 + 70 * np.arange(channels) + 10 * seed
    waves = [0.2 * np.sin(2 * np.pi * pitch * t * (1 + 0.4 * t / seconds)) for pitch in pitches]
    noise = np.cumsum(rng.standard_normal((len(t), channels)), axis=0)
    noise -= np.apply_along_axis(lambda x: np.convolve(x, np.ones(200) / 200, "same"), 0, noise)
    return np.float32(np.stack(waves, axis=1) + 0.05 * noise / noise.std())


def encode_av(wave, rate_hz, container, codec, *, layout=None, bits="", options=None):
    """Bytes of a file that FFmpeg's encoder and muxer write."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[wave.shape[1]]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout, options=options or {})
        if not codec.startswith(("pcm", "flac", "alac", "tta", "wavpack", "adpcm")):
            stream.bit_rate = 160_000
        if bits:
            stream.format = bits
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 4_096
        resampler = av.AudioResampler(stream.format, layout, rate_hz, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(part):
                file.mux(packet)
    return buffer.getvalue()


def encode_sf(wave, rate_hz, kind, subtype=None):
    """Bytes of a file that libsndfile writes, in pieces: libvorbis breaks on much at once."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, wave.shape[1], format=kind, subtype=subtype) as file:
        for first in range(0, len(wave), 4_000):
            file.write(wave[first : first + 4_000])
    return buffer.getvalue()


def without_xing(mp3):
    """The MP3 without its first frame, which holds no music but the header."""
    second = mp3.index(b"\xff\xfb", mp3.index(b"\xff\xfb") + 4)
    return mp3[second:]


def wav_claiming(wav, num_bytes):
    """A WAV whose header says another size of its samples, as a recorder leaves it that lost its power."""
    place = wav.index(b"data") + 4
    return wav[:place] + struct.pack("<I", num_bytes) + wav[place + 4 :]


def id3(num_bytes):
    """An empty ID3v2 tag of so many bytes of padding."""
    size = bytes(num_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + size + bytes(num_bytes)


def by_ffmpeg(path, channels):
    """What Debian's ffmpeg decodes, float32 (samples, channels)."""
    command = [FFMPEG, "-v", "error", "-i", str(path), "-map", "0:a", "-f", "f32le", "-ac", str(channels), "pipe:1"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32).reshape(
        -1, channels
    )
