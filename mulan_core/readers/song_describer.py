"""Song Describer: captions by listeners for tracks of MTG-Jamendo's test split; for evaluation alone.

One row a caption, several a track. ``is_valid_subset`` is True or empty. A path names ``92/1093792.mp3`` where the
audio is ``92/1093792.2min.mp3``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mulan_core.readers.dataset import Dataset, Download, Track, recording_id
from mulan_core.readers.official import find_file, read_rows, to_list, to_number

FACETS = ("genre", "instrument", "mood/theme")


def read(folder: Path, notes: list[str], *, valid_only: bool = False) -> Iterator[Track]:
    """Tracks of ``song_describer.csv`` with all their captions."""
    path = find_file(folder, "song_describer.csv")
    columns = ("track_id", "caption", "is_valid_subset", "artist_id", "path")
    rows: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for where, row in read_rows(path, columns, skip_blanks=True):
        if not valid_only or row["is_valid_subset"].strip().lower() == "true":
            rows.setdefault(row["track_id"], []).append((where, row))
    for track_id, track_rows in rows.items():
        where, first = track_rows[0]
        stem = first["path"].removesuffix(".mp3").removesuffix(".2min")
        yield Track(
            track_id=recording_id("jamendo", str(round(to_number(track_id, where, "track_id")))),
            audio=(f"{stem}.2min.mp3", f"{stem}.mp3", f"{stem}.low.mp3"),
            split="test",
            texts={"lf": [row["caption"] for _, row in track_rows]},
            labels=[
                f"{facet}:{tag.rpartition('---')[2]}"
                for facet in FACETS
                for tag in to_list(first.get(facet, ""), where, facet)
            ],
            artist=f"artist_{round(to_number(first['artist_id'], where, 'artist_id')):06d}",
        )


DATASET = Dataset(
    name="song_describer",
    title="Song Describer",
    tracks="706",
    about="2 minutes each with 1,106 captions by listeners, all test; the valid subset has 746 on 546",
    license="CC BY-SA 4.0 (captions); CC, per track (audio)",
    size="2 min each",
    home="https://doi.org/10.5281/zenodo.10072001",
    files=("song_describer.csv",),
    ids="jamendo",
    read=read,
    downloads=(
        Download(url="https://zenodo.org/records/10072001/files/song_describer.csv", file="song_describer.csv"),
    ),
    by_hand="the audio: audio.zip of the same record",
    options={"valid_only": "only captions of the valid subset"},
)
