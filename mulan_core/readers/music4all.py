"""Music4All: 30-second clips with genres and tags, on request. Its ``.csv`` files are tab-separated.

It has no official split; tracks are dealt by a hash of their id, 80/10/10.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mulan_core.data.rows import hashed_split
from mulan_core.readers.dataset import Dataset, Track, recording_id
from mulan_core.readers.official import find_file, read_rows


def read(folder: Path, notes: list[str]) -> Iterator[Track]:
    """Tracks of ``id_information.csv`` with their genres and tags."""
    genres, tags = _read_names(folder, "genres"), _read_names(folder, "tags")
    notes.append("no official split: tracks are dealt to train, valid and test by a hash of their id")
    path = find_file(folder, "id_information.csv")
    for _, row in read_rows(path, ["id", "artist", "song"], delimiter="\t"):
        official = row["id"]
        track_id = recording_id("music4all", official)
        track_genres, track_tags = genres.get(official, []), tags.get(official, [])
        yield Track(
            track_id=track_id,
            audio=(f"{official}.mp3", f"audios/{official}.mp3"),
            split=hashed_split(track_id),
            texts={"sf": list(dict.fromkeys(track_genres + track_tags))},
            labels=[f"genre:{name}" for name in track_genres] + [f"tag:{name}" for name in track_tags],
            title=row["song"] or None,
            artist=row["artist"] or None,
        )


def _read_names(folder: Path, what: str) -> dict[str, list[str]]:
    """Names by track, joined by commas in ``id_<what>.csv``."""
    rows = read_rows(find_file(folder, f"id_{what}.csv"), ["id", what], delimiter="\t")
    return {row["id"]: [name.strip() for name in row[what].split(",") if name.strip()] for _, row in rows}


DATASET = Dataset(
    name="music4all",
    title="Music4All",
    tracks="109,269",
    about="clips of 30 s with genres and tags",
    license="research only, on request",
    size="on request",
    home="https://sites.google.com/view/contact4music4all",
    files=("id_information.csv", "id_genres.csv", "id_tags.csv"),
    ids="music4all",
    read=read,
    by_hand="everything, on request from its makers",
)
