"""MusicCaps: 10-second segments of AudioSet with a caption and a list of aspects by musicians.

Aspects are spelled as a Python list, label ids are joined by commas, captions hold newlines. Rows that are in
AudioSet's evaluation part are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mulan_core.readers import audioset
from mulan_core.readers.dataset import Dataset, Download, Track
from mulan_core.readers.official import find_file, find_optional, read_rows, to_list, to_number

COLUMNS = ("ytid", "start_s", "end_s", "audioset_positive_labels", "aspect_list", "caption", "is_audioset_eval")


def read(folder: Path, notes: list[str], *, whole_videos: bool = False) -> Iterator[Track]:
    """Rows of ``musiccaps-public.csv``."""
    path = find_file(folder, "musiccaps-public.csv")
    names = optional_names(folder, notes)
    for where, row in read_rows(path, COLUMNS):
        labels = row["audioset_positive_labels"].split(",") if names else []
        yield audioset.video_track(
            row["ytid"],
            to_number(row["start_s"], where, "start_s"),
            to_number(row["end_s"], where, "end_s"),
            where,
            split="test" if row["is_audioset_eval"].strip().lower() == "true" else "train",
            labels=audioset.name_labels(labels, names, where),
            texts={"sf": to_list(row["aspect_list"], where, "aspect_list"), "lf": [row["caption"]]},
            whole_videos=whole_videos,
        )


def optional_names(folder: Path, notes: list[str]) -> dict[str, str]:
    """Display names of AudioSet's labels, where the folder has a file that knows them."""
    if find_optional(folder, "class_labels_indices.csv", "ontology.json"):
        return audioset.read_names(folder)
    notes.append("no labels: AudioSet's class_labels_indices.csv or ontology.json in the folder would name them")
    return {}


DATASET = Dataset(
    name="musiccaps",
    title="MusicCaps",
    tracks="5,521",
    about="segments of 10 s with a caption and aspects; the 2,858 in AudioSet's evaluation part are test",
    license="CC BY-SA 4.0 (captions)",
    size="videos",
    home="https://huggingface.co/datasets/google/MusicCaps",
    files=("musiccaps-public.csv", "[class_labels_indices.csv or ontology.json of AudioSet, for labels]"),
    ids="youtube",
    read=read,
    downloads=(
        Download(
            url="https://huggingface.co/datasets/google/MusicCaps/resolve/main/musiccaps-public.csv",
            file="musiccaps-public.csv",
        ),
        *(d for d in audioset.DATASET.downloads if d.file == "ontology.json"),
    ),
    options={"whole_videos": audioset.DATASET.options["whole_videos"]},
)
