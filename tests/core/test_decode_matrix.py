"""Containers x encoders x oddities: length, place and channels are right, by every way in, and as ffmpeg has them."""

import io
from functools import cache
from math import isinf

import numpy as np
import pytest
import soxr
from audio_fixtures import (
    FFMPEG,
    by_ffmpeg,
    encode_av,
    encode_sf,
    id3,
    music,
    wav_claiming,
    without_xing,
)

from mulan_core.audio.decode import cut_clip, decode_audio, read_length

RATE_HZ = 16_000
AV = {
    "m4a aac": ("ipod", "aac", {}),
    "mp4 aac": ("mp4", "aac", {}),
    "mp4 alac 16": ("mp4", "alac", {"bits": "s16p"}),
    "mp4 alac 24": ("mp4", "alac", {"bits": "s32p"}),
    "mp4 flac": ("mp4", "flac", {"bits": "s16"}),
    "mov pcm": ("mov", "pcm_s16le", {}),
    "mov pcm 24": ("mov", "pcm_s24le", {}),
    "adts aac": ("adts", "aac", {}),
    "ts aac": ("mpegts", "aac", {}),
    "mka aac": ("matroska", "aac", {}),
    "mka flac": ("matroska", "flac", {"bits": "s16"}),
    "mka pcm": ("matroska", "pcm_s16le", {}),
    "mka mp3": ("matroska", "libmp3lame", {}),
    "wma2": ("asf", "wmav2", {}),
    "wma1": ("asf", "wmav1", {}),
    "wavpack 16": ("wv", "wavpack", {"bits": "s16p"}),
    "wavpack 32": ("wv", "wavpack", {"bits": "s32p"}),
    "wavpack float": ("wv", "wavpack", {"bits": "fltp"}),
    "tta 16": ("tta", "tta", {"bits": "s16"}),
    "tta 24": ("tta", "tta", {"bits": "s32"}),
    "aiff-c sowt": ("aiff", "pcm_s16le", {}),
    "aiff 24": ("aiff", "pcm_s24be", {}),
    "caf alac": ("caf", "alac", {"bits": "s16p"}),
    "caf pcm": ("caf", "pcm_s16le", {}),
    "wav mp3": ("wav", "libmp3lame", {}),
    "wav ms-adpcm": ("wav", "adpcm_ms", {}),
    "wav 24": ("wav", "pcm_s24le", {}),
    "wav 8": ("wav", "pcm_u8", {}),
    "wav double": ("wav", "pcm_f64le", {}),
    "wav a-law": ("wav", "pcm_alaw", {}),
    "w64": ("w64", "pcm_s16le", {}),
    "au": ("au", "pcm_s16be", {}),
    "mp2": ("mp2", "mp2", {}),
    "mp3 lame": ("mp3", "libmp3lame", {}),
    "mp3 without xing": ("mp3", "libmp3lame", {"options": {"write_xing": "0"}}),
    "ac3": ("ac3", "ac3", {}),
    "eac3": ("eac3", "eac3", {}),
    "avi mp3": ("avi", "libmp3lame", {}),
    "ogg flac": ("ogg", "flac", {"bits": "s16"}),
    "flac by ffmpeg": ("flac", "flac", {"bits": "s16"}),
    "flac 24 by ffmpeg": ("flac", "flac", {"bits": "s32"}),
}
OPUS = {"webm opus": "webm", "mka opus": "matroska", "ogg opus": "ogg", "mp4 opus": "mp4"}
MONO = ["m4a aac", "mp4 alac 16", "wavpack 16", "mp3 lame", "mp3 without xing", "wma2", "tta 16", "aiff-c sowt"]
SURROUND = ["m4a aac", "mp4 alac 16", "wavpack 16", "flac by ffmpeg", "mka flac", "ac3", "wav 24", "mka pcm"]
RATES = [("m4a aac", 22_050), ("mp3 lame", 22_050), ("mp3 without xing", 48_000), ("mp4 alac 16", 96_000)]
RATES += [("wavpack 16", 8_000), ("wma2", 32_000), ("tta 16", 48_000), ("m4a aac", 48_000), ("mp3 lame", 32_000)]
SF = {
    "wav": ("WAV", "PCM_16"),
    "wav float": ("WAV", "FLOAT"),
    "rf64": ("RF64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
}
ODD = {
    "mp3 behind 1,500 zeros": lambda: bytes(1_500) + file_of("sf mp3"),
    "mp3 behind 8,192 zeros": lambda: bytes(8_192) + file_of("sf mp3"),
    "mp3 behind 300 kB of ID3": lambda: id3(300_000) + file_of("sf mp3"),
    "mp3 cut out of a stream": lambda: file_of("mp3 without xing")[2_000:],
    "mp3 without its first frame": lambda: without_xing(file_of("mp3 lame")),
    "two mp3 in one": lambda: 2 * file_of("mp3 lame"),
    "two vorbis in one": lambda: file_of("sf vorbis") + encode_sf(music(2.0, seed=1), 44_100, "OGG", "VORBIS"),
    "the same vorbis twice": lambda: 2 * file_of("sf vorbis"),
    "two opus in one": lambda: 2 * file_of("ogg opus"),
    "flac behind ID3": lambda: id3(5_000) + file_of("sf flac"),
    "flac that states no length": lambda: flac_claiming(file_of("sf flac"), 0),
    "flac that states a second": lambda: flac_claiming(file_of("sf flac"), 44_100),
    "wav of size 0": lambda: wav_claiming(file_of("sf wav"), 0),
    "wav of a pipe": lambda: wav_claiming(file_of("sf wav"), 0xFFFFFFFF),
    "wav of an old size": lambda: wav_claiming(file_of("sf wav"), 44_100 * 4),
    "wav cut": lambda: file_of("sf wav")[:-20_000],
    "m4a with the table at its end": lambda: file_of("m4a aac"),
    "aac cut out of a stream": lambda: file_of("adts aac")[1_000:],
}
BETTER = dict.fromkeys(("mp3 behind 1,500 zeros", "mp3 behind 8,192 zeros"), "sf mp3")
BETTER |= {"wav of an old size": "sf wav", "mka aac": "m4a aac", "mka mp3": "mp3 lame", "two opus in one": "ogg opus"}
"""What Debian's older ffmpeg does not see in a file (the header behind zeros, what is behind a size, what an encoder
put in front in a Matroska), it sees in another one of the same music."""
CASES = [*AV, *OPUS, *(f"{name} mono" for name in MONO), *(f"{name} 5.1" for name in SURROUND)]
CASES += [f"{name} {rate_hz}" for name, rate_hz in RATES] + [f"sf {name}" for name in SF] + list(ODD)


def flac_claiming(data, num_frames):
    return (
        data[:21]
        + bytes([data[21] & 0xF0 | num_frames >> 32])
        + (num_frames & 0xFFFFFFFF).to_bytes(4, "big")
        + data[26:]
    )


@cache
def file_of(case):
    """The bytes of a case."""
    if case in ODD:
        return ODD[case]()
    if case in OPUS:
        return encode_av(music(rate_hz=48_000), 48_000, OPUS[case], "libopus")
    if case.startswith("sf "):
        rate_hz = 48_000 if case == "sf opus" else 44_100
        return encode_sf(music(rate_hz=rate_hz), rate_hz, *SF[case[3:]])
    name, _, last = case.rpartition(" ")
    if case in AV:
        name, last = case, ""
    channels = {"mono": 1, "5.1": 6}.get(last, 2)
    rate_hz = int(last) if last.isdigit() and int(last) > 5_000 else 44_100
    container, codec, options = AV[name]
    return encode_av(music(rate_hz=rate_hz, channels=channels), rate_hz, container, codec, **options)


def channels_of(case):
    return 1 if case.endswith(" mono") else 6 if case.endswith(" 5.1") else 2


def rate_of(case):
    last = case.split()[-1]
    return 48_000 if "opus" in case else int(last) if last.isdigit() and int(last) > 5_000 else 44_100


def downmix(wave):
    """FFmpeg's own weights, spelled out."""
    if wave.shape[1] == 6:
        return wave @ np.float32([0.2071, 0.2071, 0.2929, 0, 0.1464, 0.1464])
    return wave.mean(axis=1)


def lag(one, other):
    """How many samples the one is behind the other, and their correlation there."""
    length = min(len(one), len(other))
    spectra = [np.fft.rfft(wave[:length], 2 * length) for wave in (one, other)]
    cross = np.fft.irfft(spectra[0] * spectra[1].conj())
    place = int(np.argmax(cross))
    norms = np.linalg.norm(one[:length]) * np.linalg.norm(other[:length])
    return place if place < length else place - 2 * length, float(cross[place] / norms)


def test_there_are_sixty_cases():
    assert len(CASES) == len(set(CASES)) >= 60


@pytest.mark.parametrize("case", CASES)
def test_every_way_in_gives_the_same_music(case, tmp_path):
    data = file_of(case)
    path = tmp_path / "no-ending"
    path.write_bytes(data)
    wave, seconds = decode_audio(data)
    assert len(wave) == pytest.approx(seconds * RATE_HZ, abs=1)
    length_s = read_length(path)  # by packets it may hold what an encoder put in front, two frames of WMA at most
    assert length_s == pytest.approx(seconds, abs=0.07) or (case == "flac that states no length" and isinf(length_s))
    for source in (path, io.BytesIO(data)):
        again, again_s = decode_audio(source)
        assert again_s == seconds and np.array_equal(again, wave)
    for start_s, duration_s in ((None, None), (1.7, 0.7)):
        clip = cut_clip(path, clip_s=0.5, start_s=start_s, duration_s=duration_s)
        first = round(clip.start_s * RATE_HZ)
        assert len(clip.wave) == 8_000
        assert np.abs(clip.wave - wave[first : first + 8_000]).max() < 2e-4
        last_s = min(seconds, (start_s or 0) + duration_s) if duration_s else seconds
        assert clip.start_s == pytest.approx(((start_s or 0) + last_s - 0.5) / 2, abs=1e-3)


@pytest.mark.skipif(FFMPEG is None, reason="Debian's ffmpeg is not here to compare with")
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_ffmpeg_decodes(case, tmp_path):
    path = tmp_path / "no-ending"
    path.write_bytes(file_of(case))
    wave, seconds = decode_audio(path)
    rate_hz = rate_of(case)
    if case in BETTER:
        path.write_bytes(file_of(BETTER[case]))
    expected = by_ffmpeg(path, channels_of(case))
    if case == "two opus in one":
        expected = np.concatenate([expected, expected])
    assert seconds == pytest.approx(len(expected) / rate_hz, abs=2_049 / rate_hz)
    behind, alike = lag(wave, soxr.resample(downmix(expected), rate_hz, RATE_HZ))
    # The decoder of Opus goes on into the second stream with the memory of the first: 50 ms are wrong, as in ffmpeg.
    assert (behind, alike > (0.9 if case == "two opus in one" else 0.999)) == (0, True), (behind, alike)
