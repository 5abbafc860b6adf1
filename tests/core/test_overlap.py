"""Overlaps of training and evaluation: by audio, by id, and across data sets that share recordings."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.data.overlap import Overlap, check_overlaps, check_splits, find_overlaps
from mulan_core.errors import UserError

OFFICIAL = Path(__file__).parents[3] / "shared" / "data"


def table(*rows):
    names = ("track_id", "dataset", "split", "sha256")
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})


def row(track_id, dataset="mine", sha256=None, split="train"):
    return {"track_id": track_id, "dataset": dataset, "sha256": sha256, "split": split}


def test_same_audio_under_two_ids():
    found = find_overlaps(table(row("a", sha256="1"), row("b", sha256="2")), table(row("c", sha256="2")))
    assert found == [Overlap("audio", "b", "c", "mine", "mine")]
    assert str(found[0]) == "b (mine) = c (mine), same audio"


def test_unknown_audio_is_not_the_same_audio():
    assert find_overlaps(table(row("a"), row("b")), table(row("c"))) == []
    assert find_overlaps(pa.table({"track_id": ["a"]}), pa.table({"track_id": ["b"]})) == []


def test_same_id_in_two_tables():
    assert find_overlaps(table(row("a"), row("b")), table(row("b", "other"))) == [
        Overlap("track", "b", "b", "mine", "other")
    ]


def test_a_pair_is_told_once_and_copies_each():
    train = table(row("a", sha256="1"), row("b", sha256="1"))
    found = find_overlaps(train, table(row("a", sha256="1"), row("c", sha256="1")))
    assert sorted((o.kind, o.train_id, o.eval_id) for o in found) == [
        ("audio", "a", "a"), ("audio", "a", "c"), ("audio", "b", "a"), ("audio", "b", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        (("-0Gj8-vB1q4", "audioset"), ("youtube:-0Gj8-vB1q4", "musiccaps")),
        (("track_1093792", "mtg_jamendo"), ("jamendo:1093792", "song_describer")),
        (("f/a-b-01-c-0-29.mp3", "magnatagatune"), ("mtat:a-b-01-c-0-29", "lp_musiccaps")),
        (("youtube:-0Gj8-vB1q4", "lp_musiccaps"), ("-0Gj8-vB1q4", "audioset")),
    ],
)
def test_data_sets_that_share_recordings(train, evaluation):
    (found,) = find_overlaps(table(row(*train)), table(row(*evaluation)))
    assert found == Overlap("recording", train[0], evaluation[0], train[1], evaluation[1])


def test_ids_of_other_data_sets_that_look_alike_are_no_overlap():
    assert find_overlaps(table(row("fma:2", "fma")), table(row("jamendo:2", "mtg_jamendo"))) == []


def test_overlaps_are_refused_with_the_first_few():
    train = table(*(row(f"t{i}", sha256=str(i)) for i in range(7)), row("same"))
    overlaps = find_overlaps(train, table(*(row(f"e{i}", sha256=str(i)) for i in range(7)), row("same")))
    with pytest.raises(UserError) as error:
        check_overlaps(overlaps, remedy="drop them")
    sentence = str(error.value)
    assert sentence.startswith("8 recordings are in training and evaluation both (7 by audio, 1 by track): t0 (mine)")
    assert sentence.endswith("; and 3 more; drop them")
    assert sentence.count("same audio") == 5
    assert "\n" not in sentence
    check_overlaps(overlaps, remedy="drop them", allow=True)
    check_overlaps([], remedy="drop them")


def test_splits_of_one_manifest(tmp_path):
    rows = [row("a", sha256="1"), row("b", sha256="1"), row("c", sha256="2", split="valid")]
    pq.write_table(table(*rows), tmp_path / "good.parquet")
    check_splits(tmp_path / "good.parquet")  # copies inside one split are no overlap
    pq.write_table(table(*rows, row("d", sha256="2", split="train")), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"^1 recording is .* d \(mine\) = c \(mine\), same audio; .*--allow-overlap"):
        check_splits(tmp_path / "bad.parquet")
    check_splits(tmp_path / "bad.parquet", allow=True)


def test_musiccaps_and_audiosets_evaluation_part_share_2858_videos(tmp_path):
    captions, segments = OFFICIAL / "musiccaps/musiccaps-public.csv", OFFICIAL / "audioset/eval_segments_rebuilt.csv"
    for path in (captions, segments):
        if not path.exists():
            pytest.skip(f"no {path}")
    with captions.open(newline="") as lines:
        musiccaps = [row(line["ytid"], "musiccaps") for line in csv.DictReader(lines)]
    with segments.open(newline="") as lines:
        audioset = [row(cells[0], "audioset") for cells in csv.reader(lines) if not cells[0].startswith("#")]
    found = find_overlaps(table(*musiccaps), table(*audioset))
    assert len(found) == 2_858
    assert {(o.train_dataset, o.eval_dataset) for o in found} == {("musiccaps", "audioset")}
