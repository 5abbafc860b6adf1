"""The clips of a split by number against the whole table in memory, over several shards and row groups."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared_fixtures import rows_of

from mulan_core.data.sampling import texts_by_source
from mulan_core.data.shards import read_split
from mulan_core.data.split import Split
from mulan_core.errors import UserError

COLUMNS = ["track_id", "audio", "num_samples", "texts"]


@pytest.fixture
def prepared(tmp_path):
    """23 clips in shards of 10, 10 and 3, row groups of 4; one text in five was dropped, some are null or missing."""
    rows = rows_of("train", 23)
    for i, row in enumerate(rows):
        for j, text in enumerate(row["texts"]):
            text["drop"] = ["boilerplate", "empty"][j % 2] if (i + j) % 5 == 0 else None
    rows[3]["texts"], rows[11]["texts"] = [], []
    (tmp_path / "train").mkdir()
    for shard in range(3):
        table = pa.Table.from_pylist(rows[shard * 10 : shard * 10 + 10])
        pq.write_table(table, tmp_path / "train" / f"shard-{shard:05d}.parquet", row_group_size=4, compression="none")
    return tmp_path


def test_rows_are_those_of_the_table_whatever_stays_in_memory(prepared):
    table = read_split(prepared, "train", columns=COLUMNS).to_pylist()
    for keep in (1, 64):
        clips = Split(prepared, "train", COLUMNS, keep_groups=keep)
        assert len(clips) == 23 and clips.rows_of_group == 4
        for number in np.random.default_rng(0).permutation(23):
            row = clips.row(int(number), "texts", "audio", "track_id")
            assert row == tuple(table[number][name] for name in ("texts", "audio", "track_id"))
        assert len(clips._loaded) == min(keep, 7)


@pytest.mark.parametrize("use_filtered", [True, False])
def test_sources_are_those_that_can_be_drawn(prepared, use_filtered):
    clips = Split(prepared, "train", COLUMNS)
    found = clips.sources(use_filtered=use_filtered)
    rows = [texts_by_source(clips.row(i, "texts")[0], use_filtered=use_filtered) for i in range(23)]
    assert set(found) == {source for row in rows for source in row}
    for source, has in found.items():
        assert has.tolist() == [source in row for row in rows], source


def test_columns_are_whole(prepared):
    table = read_split(prepared, "train")
    assert Split(prepared, "train", COLUMNS).column("num_samples").to_pylist() == table["num_samples"].to_pylist()


def test_a_split_without_shards_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no shard"):
        Split(tmp_path, "train", COLUMNS)
