"""Vectors are made once for a clip and a model: what is new costs, and what was finished before a kill is kept."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from model_fixtures import processor, tiny_model
from prepared_fixtures import write_prepared

from flows.pipeline.embed import TrackEmbedder, open_windows, plan_work, window_key
from flows.pipeline.index_rows import window_rows
from flows.pipeline.vector_cache import VectorCache
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.embedding import embed_tracks
from mulan_core.model import MuLanModel
from mulan_core.processor import MuLanProcessor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@pytest.fixture
def shard(tmp_path):
    """Ten clips in row groups of four."""
    prepared = write_prepared(tmp_path / "prepared", train=10)
    path = prepared / "train" / "shard-00000.parquet"
    table = pq.read_table(path)
    keys = pa.array([f"key {i}" for i in range(len(table))])
    pq.write_table(table.append_column("clip_key", keys), path, row_group_size=4)
    return path


def test_vectors_come_back_whoever_wrote_them(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    VectorCache(tmp_path).add(["a", "b"], vectors[:2])
    VectorCache(tmp_path).add(["c", "d", "e"], vectors[2:])
    (tmp_path / ".x.building").write_bytes(b"cut off")
    cache = VectorCache(tmp_path)
    np.testing.assert_array_equal(cache.get(["e", "a", "c"]), vectors[[4, 0, 2]])
    assert "d" in cache and "f" not in cache
    with pytest.raises(KeyError):
        cache.get(["f"])


def test_only_unknown_clips_are_work(shard, tmp_path):
    assert [(item["group"], item["indices"]) for item in plan_work([shard])] == [
        (0, [0, 1, 2, 3]),
        (1, [0, 1, 2, 3]),
        (2, [0, 1]),
    ]
    cache = VectorCache(tmp_path / "cache")
    cache.add([f"key {i}" for i in (0, 1, 2, 3, 5, 8)], np.zeros((6, 2)))
    work = plan_work([shard], cache)
    assert [(item["group"], item["indices"]) for item in work] == [(1, [0, 2, 3]), (2, [1])]
    cache.add([f"key {i}" for i in (4, 6, 7, 9)], np.zeros((4, 2)))
    assert plan_work([shard], VectorCache(tmp_path / "cache")) == []


def test_the_clips_of_the_work_are_embedded_and_no_others(shard, model):
    work = [{"shard": str(shard), "group": 0, "indices": [3, 1]}, {"shard": str(shard), "group": 2, "indices": [0]}]
    batch = {name: [item[name] for item in work] for name in ("shard", "group", "indices")}
    made = list(TrackEmbedder(str(model), None, 8, 1)(batch))
    assert np.concatenate([clips["clip_key"] for clips in made]).tolist() == ["key 3", "key 1", "key 8"]
    waves = [shards.decode_flac(row["audio"]) for row in pq.read_table(shard).to_pylist()]
    opened = MuLanModel.from_pretrained(model), MuLanProcessor.from_pretrained(model)
    expected = embed_tracks(*opened, [waves[i] for i in (3, 1, 8)], batch_size=1)
    np.testing.assert_allclose(np.concatenate([clips["vector"] for clips in made]), expected, atol=1e-5)


def test_windows_are_placed_in_the_file_that_plays(shard, model, tmp_path):
    """A clip of 2.5 s is the middle of a file of 6.5 s."""
    tracks, names = pq.read_table(shard).to_pylist(), ("shard", "group", "indices")
    batch = {name: [item[name] for item in plan_work([shard])] for name in names}
    heard = open_windows(model, tmp_path / "cache")
    expected = {}
    for clips in TrackEmbedder(str(model), None, 8, 1, windows=True)(batch):
        for track_id, key, vector, data in zip(*clips.values(), strict=True):
            windows_WD = np.frombuffer(data, np.float32).reshape(-1, len(vector))
            heard.add([window_key(key, i) for i in range(len(windows_WD))], windows_WD)
            mean_D = windows_WD.mean(axis=0)
            np.testing.assert_allclose(mean_D / np.linalg.norm(mean_D), vector, atol=1e-5)
            expected[track_id] = windows_WD
    prepared = tmp_path / "prepared"
    columns = {
        name: [track[name] for track in tracks] for name in ("track_id", "clip_key", "num_samples", "media_path")
    }
    soundfile.write(tmp_path / "0.wav", np.zeros(104_000), 16_000)
    columns["media_path"][0] = str(tmp_path / "0.wav")  # the others' files are not here
    pq.write_table(pa.table(columns | {"clip_start_s": [2.0] * len(tracks)}), prepared / shards.MANIFEST)
    config = PrepareConfig(clip_s=2.5)
    (rows,) = window_rows(prepared, model, cache=tmp_path / "cache", config=config)
    first = tracks[0]["track_id"]
    assert {row["track_id"] for row in rows} == {first}
    np.testing.assert_array_equal([row["vector"] for row in rows], expected[first])
    assert len(rows) > 1 and rows[0]["start_s"] == 2.0 and rows[-1]["end_s"] == 4.5
    assert plan_work([shard], dict.fromkeys(columns["clip_key"]), open_windows(model, tmp_path / "cache")) == []
    assert len(plan_work([shard], dict.fromkeys(columns["clip_key"]), {})) == 3
