"""The plan: shards follow from the manifest alone, and every track is in one of them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.config import PrepareConfig
from mulan_core.data import shard_plan as plan_module
from mulan_core.data import shards
from mulan_core.data.rows import SPLITS
from mulan_core.data.shard_plan import Shard, place_of, plan_shards, shard_counts
from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError

CONFIG = PrepareConfig(clip_s=5.0, shard_mb=1)  # ten clips


def write_manifest(folder, ids, split="train"):
    folder.mkdir(exist_ok=True)
    rows = [{"track_id": i, "uri": f"{i}.wav", "split": split, "text": f"text of {i}"} for i in ids]
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    return folder / "manifest.parquet"


def rows_of(folder):
    return {str(p.relative_to(folder)): pq.read_table(p).to_pylist() for p in sorted(folder.rglob("*.parquet"))}


def test_the_plan_knows_neither_the_order_of_rows_nor_the_size_of_parts(tmp_path, monkeypatch):
    ids = [f"t{i}" for i in range(300)]
    shards_to_be = plan_shards(write_manifest(tmp_path / "a", ids), tmp_path / "plan", CONFIG)
    planned = rows_of(tmp_path / "plan")
    assert sum(map(len, planned.values())) == 300
    assert [s for s in shards_to_be if s.split == "train"] == [Shard("train", i, 32) for i in range(32)]
    assert {s.split for s in shards_to_be} == set(SPLITS)
    for name, rows in planned.items():
        shard = next(s for s in shards_to_be if str(s.path) == name)
        places = [place_of(row["track_id"]) for row in rows]
        assert places == sorted(places)
        assert all(shard.holds(row["track_id"]) for row in rows)
        assert all(row["media_path"].endswith(f"/a/{row['uri']}") for row in rows)
    monkeypatch.setattr(plan_module, "PART_ROWS", 20)
    plan_shards(write_manifest(tmp_path / "a", ids[::-1]), tmp_path / "again", CONFIG)
    assert rows_of(tmp_path / "again") == planned


def test_a_track_more_changes_one_shard(tmp_path):
    ids = [f"t{i}" for i in range(300)]
    plan_shards(write_manifest(tmp_path / "a", ids), tmp_path / "plan", CONFIG)
    plan_shards(write_manifest(tmp_path / "a", [*ids, "one more"]), tmp_path / "more", CONFIG)
    before, after = rows_of(tmp_path / "plan"), rows_of(tmp_path / "more")
    assert sum(before.get(name) != rows for name, rows in after.items()) == 1


def test_shards_that_overlap_hold_the_same_tracks():
    ids = [f"t{i}" for i in range(200)]
    for of, other in ((1, 4), (8, 2), (4, 4)):
        for index in range(of):
            shard = Shard("train", index, of)
            inside = {i for i in ids if shard.holds(i)}
            found = {i for old in shard.overlapping({other}) for i in ids if old.holds(i)}
            assert inside <= found
            assert other < of or inside == found


def test_judged_texts_take_the_place_of_those_found_in_any_order(tmp_path):
    ids = [f"t{i}" for i in range(30)]
    schema = pa.schema([("track_id", pa.string()), ("texts", pa.list_(shards.PREPARED_TEXT))])
    judged = [{"track_id": i, "texts": [{"source": "lf", "text": f"of {i}", "drop": None}]} for i in reversed(ids)]
    texts = tmp_path / "texts.parquet"
    pq.write_table(pa.Table.from_pylist(judged, schema=schema), texts)
    manifest = write_manifest(tmp_path / "a", ids)
    plan_shards(manifest, tmp_path / "plan", CONFIG, texts=texts)
    for rows in rows_of(tmp_path / "plan").values():
        assert all(row["texts"] == [{"source": "lf", "text": f"of {row['track_id']}", "drop": None}] for row in rows)
    pq.write_table(pa.Table.from_pylist(judged[1:], schema=schema), texts)
    with pytest.raises(UserError, match="has no row for the track 't29'"):
        plan_shards(manifest, tmp_path / "plan", CONFIG, texts=texts)


def test_shard_counts_and_schema(tmp_path):
    assert shard_counts(tmp_path) == {"train": set(), "valid": set(), "test": set()}
    for name in ("shard-00000-of-00002.parquet", "shard-00003-of-00004.parquet", "shard-00000.parquet"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / name).touch()
    assert shard_counts(tmp_path)["train"] == {2, 4}
    schema = shards.shard_schema(read_manifest(write_manifest(tmp_path, ["a"])).schema)
    facts = ["num_samples", "clip_start_s", "decoder", "channels_cancel", "num_clipped"]
    assert schema.names[-8:] == ["media_path", *facts, "clip_key", "audio"]
    assert schema.field("texts").type == pa.list_(shards.PREPARED_TEXT)
    assert "audio" not in shards.without_audio(schema).names
