"""Shards: audio survives, splits have an identity."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.data import shards
from mulan_core.errors import UserError


def test_flac_round_trip_is_within_one_step_of_16_bit():
    wave_T = np.sin(np.arange(16_000) / 20).astype(np.float32) * 0.8
    data = shards.encode_flac(wave_T, 16_000)
    assert np.abs(shards.decode_flac(data) - wave_T).max() <= 1 / 32768
    np.testing.assert_array_equal(shards.decode_flac(data, start=5000, frames=100), shards.decode_flac(data)[5000:5100])


def test_louder_than_full_scale_is_clipped_not_wrapped():
    assert shards.decode_flac(shards.encode_flac(np.full(1000, 3.0, np.float32), 16_000)).min() > 0.99


def test_missing_shards_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="holds no shard; run `mulan prepare`"):
        shards.read_split(tmp_path, "train")
    with pytest.raises(UserError, match="not a prepared folder"):
        shards.read_counts(tmp_path)


def test_the_hash_of_a_split_follows_its_tracks_not_their_order(tmp_path):
    rows = [
        {"track_id": "a", "split": "test", "labels": ["x"], "sha256": "1"},
        {"track_id": "b", "split": "test", "labels": [], "sha256": "2"},
        {"track_id": "c", "split": "train", "labels": ["y"], "sha256": "3"},
    ]

    def hashed(rows):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / shards.MANIFEST)
        return shards.hash_split(tmp_path, "test")

    first = hashed(rows)
    assert hashed(rows[::-1]) == first
    assert hashed([*rows[:2], {**rows[2], "sha256": "4"}]) == first, "another split's audio is no concern"
    assert hashed([{**rows[0], "sha256": "9"}, *rows[1:]]) != first
    assert hashed([{**rows[0], "labels": ["z"]}, *rows[1:]]) != first
