"""What mangled and hostile files do, what cancels, is silent, too loud or no audio; with either decoder."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import psutil
import pytest
from audio_fixtures import encode_av, encode_sf, music, wav_claiming

from mulan_core.audio.decode import AudioError, cut_clip, decode_audio, read_length, rms_of
from mulan_core.config import PrepareConfig

KINDS = {
    "M4A": lambda wave: encode_av(wave, 44_100, "ipod", "aac"),
    "ALAC": lambda wave: encode_av(wave, 44_100, "mp4", "alac", bits="s16p"),
    "WMA": lambda wave: encode_av(wave, 44_100, "asf", "wmav2"),
    "WavPack": lambda wave: encode_av(wave, 44_100, "wv", "wavpack", bits="s16p"),
    "TTA": lambda wave: encode_av(wave, 44_100, "tta", "tta", bits="s16"),
    "Matroska": lambda wave: encode_av(wave, 44_100, "matroska", "flac", bits="s16"),
    "MP3": lambda wave: encode_av(wave, 44_100, "mp3", "libmp3lame", options={"write_xing": "0"}),
    "AIFF": lambda wave: encode_sf(wave, 44_100, "AIFF", "PCM_16"),
    "Vorbis": lambda wave: encode_sf(wave, 44_100, "OGG", "VORBIS"),
    "FLAC": lambda wave: encode_sf(wave, 44_100, "FLAC", "PCM_16"),
    "WAV": lambda wave: encode_sf(wave, 44_100, "WAV", "PCM_16"),
}
LOSSLESS = ("ALAC", "WavPack", "FLAC", "WAV")


def why(source, **options):
    with pytest.raises(AudioError) as caught:
        cut_clip(source, clip_s=1.0, **options)
    return caught.value.reason, str(caught.value)


def mangled(data, rng):
    """Some bytes other ones, mostly in front; a part missing, or twice."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 12)):
        end = len(changed) if rng.random() < 0.3 else min(len(changed), 600)
        place = int(rng.integers(0, end))
        changed[place : place + 4] = rng.bytes(4) if rng.random() < 0.5 else rng.choice([b"\xff" * 4, bytes(4)])
    first, last = sorted(int(place) for place in rng.integers(0, len(changed), 2))
    if rng.random() < 0.3:
        del changed[first:last]
    elif rng.random() < 0.2:
        changed[last:last] = changed[first:last]
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_mangled_files_are_audio_or_a_sentence_and_leave_memory_flat(kind):
    data = KINDS[kind](music(1.0))
    rng = np.random.default_rng(0)
    process = psutil.Process()
    decode_audio(data)
    before = process.memory_info().rss
    for _ in range(20):
        try:
            wave = cut_clip(mangled(data, rng), clip_s=0.5, max_s=30.0).wave
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert len(wave) <= 8_000 and np.isfinite(wave).all() and (np.abs(wave) <= 1).all()
    assert process.memory_info().rss - before < 200 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_seconds_stops_either_decoder(kind):
    data = KINDS[kind](music(2.0))
    assert why(data, max_s=1.5)[0] == "too_long"
    with pytest.raises(AudioError):
        decode_audio(data, max_s=1.5)
    clip = cut_clip(data, clip_s=0.5, start_s=1.2, duration_s=0.6, max_s=1.5)
    assert len(clip.wave) == 8_000, "of a long file the segment is judged"
    assert why(data, start_s=0.1, duration_s=1.8, max_s=1.5)[0] == "too_long"
    assert why(data, start_s=0.1, max_s=1.5)[0] == "too_long"
    assert len(cut_clip(data, clip_s=0.5, start_s=1.0, max_s=1.5).wave) == 8_000


def test_an_mp4_that_names_more_samples_than_it_has_bytes_is_refused_before_memory_is_set_aside():
    data = KINDS["M4A"](music(1.0))
    place = data.index(b"stsz") + 8
    for bomb in (
        data[:place] + struct.pack(">II", 1, 1 << 28) + data[place + 8 :],
        data[:place] + struct.pack(">II", 0, 1 << 28) + data[place + 8 :],
    ):
        tracemalloc.start()
        assert why(bomb)[0] == "undecodable"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_no_other_file_is_read(tmp_path, text):
    other = tmp_path / "other.wav"
    other.write_bytes(encode_sf(music(1.0), 44_100, "WAV", "PCM_16"))
    listing = tmp_path / "list.m4a"
    listing.write_text(text.format(other))
    assert why(listing) == (
        "undecodable",
        f"{listing} is a playlist, not audio that can be decoded; name the files that it lists",
    )


def test_what_is_no_audio_is_named_and_what_is_gets_the_command(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.wav", b"x")
    assert "is a zip archive, not audio that can be decoded; unpack it" in why(archive.getvalue())[1]
    assert "MIDI" in why(b"MThd\0\0\0\6" + bytes(40))[1] and "tracker module (XM)" in why(b"Extended Module: x" * 9)[1]
    path = tmp_path / "my song.wma"
    path.write_bytes(KINDS["WMA"](music(1.0))[:300])
    assert why(path)[1].endswith(f"try `ffmpeg -i '{path}' '{path}'.flac`") and "(ASF/WMA)" in why(path)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_cancel_leave_the_louder_one(kind):
    one = music(2.0, channels=1)
    clip = cut_clip(KINDS[kind](np.hstack([0.9 * one, -one])), clip_s=1.0)
    alone = cut_clip(KINDS[kind](np.hstack([one, one])), clip_s=1.0)
    assert clip.cancels and not alone.cancels
    assert rms_of(clip.wave) == pytest.approx(rms_of(alone.wave), rel=0.03)
    assert rms_of(decode_audio(KINDS[kind](np.hstack([0.9 * one, -one])))[0]) > 0.1


@pytest.mark.parametrize("channels", [[1, 0], [0, 1], [1, -0.5]])
def test_channels_that_do_not_cancel_are_added(channels):
    one = music(2.0, channels=1)
    clip = cut_clip(KINDS["WAV"](one * np.float32(channels)), clip_s=1.0)
    assert not clip.cancels
    assert rms_of(clip.wave) == pytest.approx(
        abs(sum(channels)) / 2 * rms_of(cut_clip(KINDS["WAV"](one), clip_s=1.0).wave), rel=0.01
    )


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_silent_middle_gives_way_to_the_loudest_part(kind):
    wave = music(9.0).copy()
    wave[2 * 44_100 : 8 * 44_100] = 0.2  # a constant is silence, too
    wave[: 2 * 44_100] *= 0.3
    data = KINDS[kind](wave)
    silence = PrepareConfig().silence_rms
    assert rms_of(cut_clip(data, clip_s=1.0).wave) < silence
    clip = cut_clip(data, clip_s=1.0, silence_rms=silence)
    assert clip.start_s == pytest.approx(8.0, abs=0.01) and rms_of(clip.wave) > 0.05
    part = cut_clip(data, clip_s=1.0, start_s=0.0, duration_s=7.0, silence_rms=silence)
    assert 0 <= part.start_s <= 1.0 and rms_of(part.wave) > 0.01, "the segment is not left"


def test_a_quiet_master_is_no_silence_and_a_loud_one_is_limited_and_counted():
    quiet = encode_sf(music(2.0) / np.abs(music(2.0)).max() * 10 ** (-50 / 20), 44_100, "WAV", "PCM_24")
    assert rms_of(cut_clip(quiet, clip_s=1.0).wave) > PrepareConfig().silence_rms
    loud = encode_sf(4 * music(2.0, channels=1), 44_100, "WAV", "FLOAT")
    clip = cut_clip(loud, clip_s=1.0)
    assert np.abs(clip.wave).max() == 1.0 and clip.num_clipped > 100
    whole, _ = decode_audio(loud)
    first = round(clip.start_s * 16_000)
    assert np.abs(clip.wave - whole[first : first + 16_000]).max() < 1e-5


def test_a_recorder_that_lost_its_power_gives_what_it_wrote():
    data = wav_claiming(encode_sf(music(2.0), 44_100, "WAV", "PCM_16"), 0)
    assert decode_audio(data)[1] == 2.0 and read_length(data) == 2.0


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("ipod", "aac"), ("ogg", "libopus")])
def test_what_browsers_and_telephones_record_is_read_as_it_is(container, codec):
    """A MediaRecorder writes to no file, so its container states no length and is never gone back to."""
    wave = music(2.0, rate_hz=48_000, channels=1)
    whole, seconds = decode_audio(encode_av(wave, 48_000, container, codec))
    assert seconds == pytest.approx(2.0, abs=0.05)
    expected = decode_audio(encode_sf(wave, 48_000, "WAV", "FLOAT"))[0]
    windows = [(waves[4_000:28_000] - waves[4_000:28_000].mean()) for waves in (whole, expected)]
    spectra = [np.abs(np.fft.rfft(window)) for window in windows]
    assert np.corrcoef(*spectra)[0, 1] > 0.98


def test_of_channels_that_cancel_the_one_is_taken_that_counts():
    """Low frequency effects do not, however loud they are."""
    one = music(2.0, channels=1)
    low = np.float32(0.9) * np.sin(2 * np.pi * 50 * np.arange(len(one)) / 44_100, dtype=np.float32)[:, None]
    blank = np.zeros_like(one)
    clip = cut_clip(KINDS["WAV"](np.hstack([one, -one, blank, low, blank, blank])), clip_s=1.0)
    alone = cut_clip(KINDS["WAV"](one), clip_s=1.0)
    assert clip.cancels and np.corrcoef(clip.wave, alone.wave)[0, 1] > 0.9
