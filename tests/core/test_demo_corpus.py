"""The corpus on disk: schema, audio, any number of workers, broken fonts, interrupted builds."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from mulan_core.config import CorpusConfig
from mulan_core.data.tracks import PLAYLIST_SCHEMA, SCHEMA, read_manifest
from mulan_core.demo.corpus import MARKER, MIN_RMS, build_corpus
from mulan_core.demo.soundfont import find_soundfont
from mulan_core.errors import UserError

CONFIG = CorpusConfig(size=12, seed=3, clip_s=4.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "corpus"
    seen: list[tuple[int, int]] = []
    counts = build_corpus(CONFIG, out, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    assert counts["tracks"] == 12 == counts["train"] + counts["valid"] + counts["test"]
    return out


def test_the_manifest_is_the_one_everything_else_reads(corpus: Path) -> None:
    table = pq.read_table(corpus / "manifest.parquet")
    assert table.schema.names[: len(SCHEMA.names)] == SCHEMA.names
    assert {"artist", "held_out", "tempo_bpm", "key"} <= set(table.schema.names)
    assert read_manifest(corpus / "manifest.parquet").num_rows == 12
    assert pq.read_table(corpus / "playlists.parquet").schema.equals(PLAYLIST_SCHEMA)


def test_audio_is_16_khz_mono_loud_enough_and_as_described(corpus: Path) -> None:
    for row in pq.read_table(corpus / "manifest.parquet").to_pylist():
        path = corpus / row["uri"]
        wave, rate_hz = soundfile.read(path, dtype="float32")
        assert rate_hz == 16_000
        assert wave.shape == (64_000,)
        assert row["duration_s"] == 4.0
        assert np.sqrt(np.mean(wave**2)) > MIN_RMS
        assert 0.45 < np.abs(wave).max() < 0.96
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_worker_makes_the_same_tracks(corpus: Path, tmp_path: Path) -> None:
    build_corpus(CONFIG, tmp_path / "alone", workers=1)
    columns = ["track_id", "split", "texts", "labels", "notes_sha256", "sha256"]
    one = pq.read_table(tmp_path / "alone" / "manifest.parquet", columns=columns)
    assert one.equals(pq.read_table(corpus / "manifest.parquet", columns=columns))


def test_a_second_build_replaces_the_first(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    build_corpus(CorpusConfig(size=3, clip_s=2.0), out, workers=1)
    build_corpus(CorpusConfig(size=2, clip_s=2.0), out, workers=1)
    assert len(list((out / "audio").iterdir())) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.parquet").write_text("my catalogue")
    with pytest.raises(UserError, match="is not a demo corpus"):
        build_corpus(CONFIG, tmp_path / "mine", workers=1)
    assert (tmp_path / "mine" / "manifest.parquet").read_text() == "my catalogue"


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            build_corpus(CONFIG, tmp_path / "corpus", workers=workers, progress=stop)
        assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_build_are_cleared(tmp_path: Path) -> None:
    dead = 2**22 - 7  # above the largest process id that is in use
    (tmp_path / f".corpus.building-{dead}").mkdir()
    build_corpus(CorpusConfig(size=1, clip_s=2.0), tmp_path / "corpus", workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]
    assert (tmp_path / "corpus" / MARKER).is_file()


def test_a_bad_font_is_found_before_any_worker_starts(tmp_path: Path) -> None:
    font = tmp_path / "bad.sf2"
    font.write_bytes(find_soundfont().read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"bad\.sf2 is broken"):
        build_corpus(CorpusConfig(soundfont=str(font)), tmp_path / "corpus")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.sf2"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_silent_font_ends_the_build_with_a_sentence(tmp_path: Path, workers: int) -> None:
    """An error inside a worker reaches the caller with its message."""
    data = bytearray(find_soundfont().read_bytes())
    at = data.find(b"smpl")
    (size,) = struct.unpack_from("<I", data, at + 4)
    data[at + 8 : at + 8 + size] = bytes(size)
    font = tmp_path / "silent.sf2"
    font.write_bytes(data)
    config = CorpusConfig(size=4, clip_s=1.0, soundfont=str(font))
    with pytest.raises(UserError, match=r"near silent .*silent\.sf2"):
        build_corpus(config, tmp_path / "corpus", workers=workers)
    assert [p.name for p in tmp_path.iterdir()] == ["silent.sf2"]


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.size is 0"):
        build_corpus(CorpusConfig(size=0), tmp_path / "corpus")
