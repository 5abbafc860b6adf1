"""Readers against the official files where they are at hand: rows, splits and labels as published."""

import csv
import json
from pathlib import Path

import pytest

from mulan_core.readers import DATASETS
from mulan_core.readers.importing import import_tracks
from mulan_core.readers.mtg_jamendo import SPELLED

OFFICIAL = Path(__file__).parents[3] / "shared" / "data"


def official(*names):
    paths = [OFFICIAL / name for name in names]
    for path in paths:
        if not path.exists():
            pytest.skip(f"no {path}")
    return paths


def link(folder, **places):
    folder.mkdir(exist_ok=True)
    for name, path in places.items():
        (folder / name).symlink_to(path)
    return folder


def counts_of(name, folder, tmp_path, **options):
    imported = import_tracks(DATASETS[name], folder, str(tmp_path), keep_missing=True, options=options)
    assert imported.repeated == 0
    return imported.counts()


def test_official_audioset(tmp_path):
    ontology, labels, segments = official(
        "audioset/ontology.json", "audioset/class_labels_indices.csv", "audioset/eval_segments_rebuilt.csv"
    )
    folder = link(
        tmp_path / "o",
        **{"ontology.json": ontology, "class_labels_indices.csv": labels, "eval_segments.csv": segments},
    )
    counts = counts_of("audioset", folder, tmp_path)
    assert (counts["tracks"], counts["texts"], counts["labels"]) == (20_371, {"aset": 51_804}, 527)
    assert counts_of("audioset", folder, tmp_path, music_only=True)["tracks"] == 7_848
    expanded = counts_of("audioset", folder, tmp_path, expand_parents=True)
    assert expanded["labels"] == 527, "what lies above a label is a label too"
    assert expanded["texts"]["aset"] > 51_804
    assert not any(":" in name for name in _names(labels)), "a colon would be read as a facet"


def _names(path):
    with path.open(newline="") as lines:
        return [row["display_name"] for row in csv.DictReader(lines)]


def test_official_musiccaps(tmp_path):
    captions, labels = official("musiccaps/musiccaps-public.csv", "audioset/class_labels_indices.csv")
    folder = link(tmp_path / "o", **{"musiccaps-public.csv": captions, "class_labels_indices.csv": labels})
    counts = counts_of("musiccaps", folder, tmp_path)
    assert (counts["tracks"], counts["splits"]) == (5_521, {"test": 2_858, "train": 2_663})
    assert counts["texts"]["lf"] == 5_521
    assert counts["texts"]["sf"] / 5_521 == pytest.approx(10.7, abs=0.05)


@pytest.mark.parametrize(
    ("subset", "splits", "labels"),
    [
        ("top50tags", {"train": 32_136, "valid": 10_888, "test": 11_356}, 50),
        ("genre", {"train": 32_572, "valid": 11_043, "test": 11_479}, 87),
        ("instrument", {"train": 14_395, "valid": 5_466, "test": 5_115}, 40),
        ("moodtheme", {"train": 9_949, "valid": 3_802, "test": 4_231}, 56),
    ],
)
def test_official_mtg_jamendo(tmp_path, subset, splits, labels):
    (folder,) = official("mtg-jamendo")
    counts = counts_of("mtg_jamendo", folder, tmp_path, subset=subset)
    assert counts["splits"] == splits
    assert counts["labels"] == labels


def test_jamendos_spelled_tags_are_official():
    (folder,) = official("mtg-jamendo/stats")
    tags = {line.split("\t")[0] for path in folder.glob("*.tsv") for line in path.read_text().splitlines()}
    assert set(SPELLED) <= tags


def test_official_magnatagatune(tmp_path):
    """Official clips, tag list and top 50 of the valid and test parts, put into the layout of the annotations."""
    index, names, tagged = official("mtat/index_mtt.tsv", "mtat/tags_188.txt", "mtat/mtat_val_test_top50.jsonl")
    tags = names.read_text().splitlines()
    of_clip = {}
    for line in tagged.read_text().splitlines():
        row = json.loads(line)
        of_clip[str(row["clip_id"])] = set(row["tags"])
    folder = tmp_path / "o"
    folder.mkdir()
    with (folder / "annotations_final.csv").open("w", newline="") as out:
        rows = csv.writer(out, delimiter="\t", quoting=csv.QUOTE_ALL)
        rows.writerow(["clip_id", *tags, "mp3_path"])
        for line in index.read_text().splitlines():
            clip, mp3 = line.split("\t")
            rows.writerow([clip, *(int(tag in of_clip.get(clip, ())) for tag in tags), mp3])
    counts = counts_of("magnatagatune", folder, tmp_path)
    assert (counts["splits"], counts["labels"]) == ({"test": 5_329, "valid": 1_825, "train": 18_706}, 50)
    dropped = counts_of("magnatagatune", folder, tmp_path, top=50, drop_untagged=True)["splits"]
    assert dropped == {"test": 5_329 - 997, "valid": 1_825 - 296}
