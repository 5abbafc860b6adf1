"""LP-MusicCaps: captions that a language model wrote from the tags of MusicCaps, MagnaTagATune or the Million Songs.

Three sets of Parquet files; the columns tell which one a file is of. Where the split is not in the rows or the path,
the file's name says it (``train-00000-of-00001.parquet``). Captions by attribute prediction hold what nobody heard;
their makers advise against them, so they are an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mulan_core.errors import UserError
from mulan_core.readers import audioset
from mulan_core.readers.dataset import Dataset, Track, recording_id
from mulan_core.readers.magnatagatune import BROKEN, clip_track
from mulan_core.readers.musiccaps import optional_names
from mulan_core.readers.official import one_line, reading, to_list, to_number, to_text

CAPTIONS = ("caption_writing", "caption_summary", "caption_paraphrase")
COLUMNS = (
    ("ytid", "start_s", "end_s", "is_audioset_eval", "aspect_list", "audioset_positive_labels"),
    ("path", "tag_top188"),
    ("track_id", "title", "artist_name", "tag"),
)
"""What tells MC, MTT and MSD apart."""
SPLITS = {"train": "train", "valid": "valid", "test": "test"}


def read(folder: Path, notes: list[str], *, predicted: bool = False, whole_videos: bool = False) -> Iterator[Track]:
    """Tracks of every Parquet file in the folder."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"there is no .parquet file in {folder}; give the folder with the official files")
    wanted = (*CAPTIONS, "caption_attribute_prediction") if predicted else CAPTIONS
    names: dict[str, str] | None = None
    for path in files:
        for where, row in _read_parquet(path):
            captions = [to_text(row[name], where, name) for name in ("caption_ground_truth", *wanted) if row.get(name)]
            if "ytid" in row:
                names = optional_names(folder, notes) if names is None else names
                yield _musiccaps_track(row, where, captions, names, whole_videos=whole_videos)
            elif "tag_top188" in row:
                if to_text(row["path"], where, "path") not in BROKEN:
                    yield _magnatagatune_track(row, where, captions)
            else:
                yield _million_song_track(row, where, captions, _split_of(path))


def _read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with reading(path), pq.ParquetFile(path) as file:
            columns = set(file.schema_arrow.names)
            if not any(columns >= {*needed, *CAPTIONS} for needed in COLUMNS):
                header = ", ".join(sorted(columns))
                raise UserError(f"{path} has not the columns of LP-MusicCaps MC, MTT or MSD; found: {header}")
            for batch in file.iter_batches(columns=[name for name in file.schema_arrow.names if name != "audio"]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file: {one_line(error)}") from error


def _split_of(path: Path) -> str:
    for word, split in SPLITS.items():
        if path.name.startswith(word):
            return split
    raise UserError(f"{path}: the file's name should start with train, valid or test, its split")


def _musiccaps_track(
    row: dict[str, Any], where: str, captions: list[str], names: dict[str, str], *, whole_videos: bool
) -> Track:
    ids = str(row["audioset_positive_labels"]).split(",") if names else []
    return audioset.video_track(
        to_text(row["ytid"], where, "ytid"),
        to_number(str(row["start_s"]), where, "start_s"),
        to_number(str(row["end_s"]), where, "end_s"),
        where,
        split="test" if str(row["is_audioset_eval"]).lower() == "true" else "train",
        labels=audioset.name_labels(ids, names, where),
        texts={"sf": to_list(row["aspect_list"], where, "aspect_list"), "lf": captions},
        whole_videos=whole_videos,
    )


def _magnatagatune_track(row: dict[str, Any], where: str, captions: list[str]) -> Track:
    tags = to_list(row["tag_top188"], where, "tag_top188")
    info = _info(row, where)
    return clip_track(row["path"], where, tags=tags, labels=tags, info=info, captions=captions)


def _info(row: dict[str, Any], where: str) -> dict[str, str]:
    columns = {"title": "title", "artist": "artist_name"}
    return {name: to_text(row[column], where, column) for name, column in columns.items() if row.get(column)}


def _million_song_track(row: dict[str, Any], where: str, captions: list[str], split: str) -> Track:
    tags = to_list(row["tag"], where, "tag")
    track_id, info = to_text(row["track_id"], where, "track_id"), _info(row, where)
    return Track(
        track_id=recording_id("msd", track_id),
        audio=(f"{track_id}.mp3", f"{'/'.join(track_id[2:5])}/{track_id}.mp3"),
        split=split,
        texts={"sf": tags, "lf": captions},
        labels=tags,
        title=info.get("title"),
        artist=info.get("artist"),
    )


DATASET = Dataset(
    name="lp_musiccaps",
    title="LP-MusicCaps",
    tracks="545,000",
    about="captions by a language model; three sets: MC 5,521, MTT 25,860, MSD about 514,000",
    license="MIT (cards), CC BY-NC 4.0 (repository)",
    size="not its own",
    home="https://huggingface.co/datasets/seungheondoh/LP-MusicCaps-MTT",
    files=(
        "*.parquet of LP-MusicCaps-MC, -MTT or -MSD",
        "[class_labels_indices.csv or ontology.json, for MC's labels]",
    ),
    ids=None,
    read=read,
    by_hand="the Parquet files of one of the three sets, each on a page of its own",
    options={
        "predicted": "also captions by attribute prediction, which their makers advise against",
        "whole_videos": audioset.DATASET.options["whole_videos"],
    },
)
