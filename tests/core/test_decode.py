"""Decoding: equal to a one-shot reference, and each kind of unusable audio by its reason."""

import io
import pickle
from functools import cache

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from mulan_core.audio.decode import AudioError, check_wave, cut_clip, decode_audio, read_length
from mulan_core.errors import UserError


def encode(wave, rate_hz=44_100, kind="WAV", **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=kind, **options)
    return buffer.getvalue()


def noise(seconds=1.0, rate_hz=44_100, channels=2):
    return 0.1 * np.random.default_rng(0).standard_normal((int(seconds * rate_hz), channels)).astype(np.float32)


def reason(source, **options):
    with pytest.raises(AudioError) as caught:
        decode_audio(source, **options)
    return caught.value.reason


def flac_claiming(data, num_frames):
    """Overwrite the 36-bit sample count in a FLAC header; 0 means unknown."""
    changed = bytearray(data)
    changed[21] = (changed[21] & 0xF0) | (num_frames >> 32)
    changed[22:26] = (num_frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_equals_downmix_and_resampling_in_one_piece(rate_hz, channels):
    """Long enough for several blocks; streaming must leave no seam."""
    wave = noise(9.0, rate_hz, channels)
    surround = np.float32([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5])  # FFmpeg's 5.1 to mono
    weights = {1: np.ones(1), 2: np.ones(2) / 2, 6: surround / surround.sum()}[channels]
    expected = soxr.resample(wave @ np.float32(weights), rate_hz, 16_000, quality="HQ")
    got, seconds = decode_audio(encode(wave, rate_hz, subtype="FLOAT"))
    assert got.dtype == np.float32
    assert seconds == 9.0
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 2e-6


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_bytes_path_and_file_object_agree(kind, tmp_path):
    data = encode(noise(), kind=kind)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data)
    waves = [decode_audio(source)[0] for source in (data, path, str(path), io.BytesIO(data))]
    assert abs(len(waves[0]) - 16_000) < 1_500  # MP3 pads
    assert all(np.array_equal(wave, waves[0]) for wave in waves[1:])


def test_missing_empty_undecodable(tmp_path):
    nothing = tmp_path / "nothing.wav"
    nothing.touch()
    flac = encode(noise(5.0), kind="FLAC")
    assert reason(tmp_path / "absent.wav") == "missing"
    assert reason(tmp_path) == "missing"
    assert reason(nothing) == "empty"
    assert reason(b"") == "empty"
    assert reason(encode(noise()[:0])) == "empty"
    assert reason(b"<html>not found</html>") == "undecodable"
    assert reason(flac[: len(flac) // 2]) == "undecodable"
    raw = tmp_path / "samples.raw"
    raw.write_bytes(b"\0" * 1000)
    assert reason(raw) == "undecodable"
    assert reason(encode(noise(channels=1), rate_hz=2)) == "undecodable"


def test_not_finite():
    wave = noise()
    wave[500, 1] = np.nan
    assert reason(encode(wave, subtype="FLOAT")) == "not_finite"


def test_length_is_judged_from_the_header_before_decoding(monkeypatch):
    """Half an hour of silence is 300 kB of FLAC; nothing of it may be decoded."""
    bomb = encode(np.zeros(48_000 * 1_800, np.int16), 48_000, "FLAC")
    assert len(bomb) < 500_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    assert reason(bomb, max_s=600) == "too_long"


def test_a_header_that_lies_does_not_move_the_limit():
    flac = encode(noise(60.0, 16_000, 1), 16_000, "FLAC")
    assert len(decode_audio(flac_claiming(flac, 0))[0]) == 60 * 16_000
    assert reason(flac_claiming(flac, 0), max_s=10) == "too_long"
    assert reason(flac_claiming(flac, 2**36 - 1), max_s=10) == "too_long"
    assert reason(flac_claiming(flac, 16_000), max_s=10) == "too_long"
    assert decode_audio(flac_claiming(flac, 16_000))[1] == 60.0


def test_audio_of_just_the_limit_is_taken():
    assert decode_audio(encode(noise(2.0)), max_s=2.0)[1] == 2.0
    assert reason(encode(noise(2.0)), max_s=1.99) == "too_long"


def test_check_wave():
    def reason_of(wave):
        with pytest.raises(AudioError) as caught:
            check_wave(wave, min_s=3.0, silence_rms=1e-3)
        return caught.value.reason

    good = 0.1 * np.resize(np.float32([1, -1]), 48_000)
    check_wave(good, min_s=3.0, silence_rms=1e-3)
    assert reason_of(good[:-1]) == "too_short"
    assert reason_of(good[:0]) == "too_short"
    assert reason_of(good * 0.009) == "silent"
    assert reason_of(0 * good + 0.5) == "silent", "a constant is no sound"
    assert reason_of(np.where(np.arange(48_000) == 7, np.inf, good)) == "not_finite"


def test_the_error_is_a_sentence_for_users_and_survives_pickling():
    with pytest.raises(UserError) as caught:
        decode_audio(b"")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == ("empty", "the audio is empty: it has no bytes")


CODECS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_24")]


def encode_long(wave, rate_hz, kind, subtype):
    """In pieces: libvorbis breaks on a whole minute at once."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, wave.shape[1], format=kind, subtype=subtype) as file:
        for first in range(0, len(wave), rate_hz):
            file.write(wave[first : first + rate_hz])
    return buffer.getvalue()


@cache
def long_audio(rate_hz, kind, subtype):
    return encode_long(noise(20.01, rate_hz), rate_hz, kind, subtype)


@pytest.mark.parametrize(("kind", "subtype"), CODECS)
@pytest.mark.parametrize("rate_hz", [11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("segment", [(None, None), (7.3, 11.0), (0.0, 3.0), (18.0, None)])
def test_a_clip_is_that_of_the_whole_file(kind, subtype, rate_hz, segment):
    """By seeking, in every format; equal within the rounding of one step of 16 bit."""
    data = long_audio(rate_hz, kind, subtype)
    start_s, duration_s = segment
    whole, seconds = decode_audio(data)
    first = round((start_s or 0) * 16_000)
    last = min(len(whole), first + round(duration_s * 16_000)) if duration_s else len(whole)
    first += max(0, (last - first - 64_000) // 2)
    clip = cut_clip(data, clip_s=4.0, start_s=start_s, duration_s=duration_s).wave
    expected = whole[first : min(last, first + 64_000)]
    assert clip.shape == expected.shape
    found_s = cut_clip(data, clip_s=4.0, start_s=start_s, duration_s=duration_s).start_s
    assert found_s == pytest.approx(first / 16_000, abs=2 / 16_000)
    assert np.abs(clip - expected).max() < 1 / 65536
    assert read_length(data) == pytest.approx(seconds)


def test_only_the_clip_of_a_long_file_is_decoded(monkeypatch):
    data = encode_long(noise(120.0, 8_000, 1), 8_000, "FLAC", "PCM_16")
    frames = []
    read = soundfile.SoundFile.read

    def counting(self, *args, **kwargs):
        block = read(self, *args, **kwargs)
        frames.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    assert len(cut_clip(data, clip_s=2.0).wave) == 32_000
    assert sum(frames) <= 8_000 * 2.6


def test_a_header_that_lies_costs_the_seek_alone():
    wave = noise(20.0, 16_000, 1)
    flac = encode_long(wave, 16_000, "FLAC", "PCM_16")
    whole = decode_audio(flac)[0]
    np.testing.assert_array_equal(cut_clip(flac_claiming(flac, 0), clip_s=4.0).wave, whole[128_000:192_000])
    np.testing.assert_array_equal(cut_clip(flac_claiming(flac, 16_000 * 500), clip_s=4.0).wave, whole[128_000:192_000])
    with pytest.raises(AudioError) as caught:
        cut_clip(flac[: len(flac) // 3], clip_s=4.0)
    assert caught.value.reason == "undecodable"
    assert len(cut_clip(flac, clip_s=4.0, start_s=30.0).wave) == 0


GOOD = {kind: encode(noise(1.0, 16_000, 1), 16_000, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_bytes_come_it_is_audio_or_an_audio_error(data):
    content = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
    source = bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        clip = cut_clip(source, clip_s=0.5, max_s=100.0).wave
        check_wave(clip, min_s=0.1, silence_rms=1e-6)
    except AudioError as error:
        assert "\n" not in str(error)
    else:
        assert len(clip) <= 8_000
