"""FMA, the Free Music Archive: tracks with genres, tags and now and then a description.

``tracks.csv`` has two rows of headers, which name a column together, and a third that names the index. Genres and
tags are spelled as Python lists, descriptions are HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Download, Track, check_choice, recording_id
from mulan_core.readers.official import check_header, find_file, read_cells, read_rows, shown, to_list

SUBSETS = ("small", "medium", "large", "full")
"""Each holds the one before; ``large`` and ``full`` hold the same tracks, as clips of 30 s and whole."""
SPLITS = {"training": "train", "validation": "valid", "test": "test"}
COLUMNS = (
    *(("set", name) for name in ("split", "subset")),
    *(("track", name) for name in ("title", "genre_top", "genres", "tags", "information", "license")),
    ("artist", "name"),
)


def read(folder: Path, notes: list[str], *, subset: str = "large") -> Iterator[Track]:
    """Tracks of a subset out of ``tracks.csv``."""
    check_choice("subset", subset, SUBSETS)
    path = find_file(folder, "tracks.csv", "fma_metadata/tracks.csv")
    genres = _read_genres(folder)
    wanted = SUBSETS[: SUBSETS.index(subset) + 1]
    rows = read_cells(path, headers=3)
    groups, names, _ = (next(rows, ("", []))[1] for _ in range(3))
    header = [f"{group}.{name}" for group, name in zip(groups, names, strict=False)]
    check_header(path, header, [f"{group}.{name}" for group, name in COLUMNS])
    for where, cells in rows:
        if len(cells) != len(header) or not cells[0].isdecimal():
            raise UserError(f"{where}: expected a track's number and {len(header) - 1} more cells, got {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        if row["set.subset"] in wanted:
            yield _track(int(cells[0]), row, where, genres, subset)


def _track(number: int, row: dict[str, str], where: str, genres: dict[str, str], subset: str) -> Track:
    if row["set.split"] not in SPLITS:
        raise UserError(f"{where}, column 'set.split': {shown(row['set.split'])} is not one of {', '.join(SPLITS)}")
    track_genres = [genres.get(genre, genre) for genre in to_list(row["track.genres"], where, "track.genres")]
    track_genres = list(dict.fromkeys(([row["track.genre_top"]] if row["track.genre_top"] else []) + track_genres))
    mp3 = f"{number // 1000:03d}/{number:06d}.mp3"
    described = plain(row["track.information"])
    return Track(
        track_id=recording_id("fma", str(number)),
        audio=(mp3, f"fma_{subset}/{mp3}"),
        split=SPLITS[row["set.split"]],
        texts={
            "sf": track_genres + to_list(row["track.tags"], where, "track.tags"),
            "lf": [described] if described else [],
        },
        labels=[f"genre:{genre}" for genre in track_genres],
        title=row["track.title"] or None,
        artist=row["artist.name"] or None,
        license=row["track.license"] or None,
    )


def plain(text: str) -> str:
    """Text out of HTML.

    >>> plain("<p>Slow&nbsp;&amp; sad.</p><p>Live</p>")
    'Slow & sad. Live'
    """
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _read_genres(folder: Path) -> dict[str, str]:
    path = find_file(folder, "genres.csv", "fma_metadata/genres.csv")
    return {row["genre_id"]: row["title"] for _, row in read_rows(path, ["genre_id", "title"])}


DATASET = Dataset(
    name="fma",
    title="FMA",
    tracks="106,574",
    about="tracks with genres and tags; subsets small 8,000, medium 25,000, large (clips of 30 s), full (whole)",
    license="CC BY 4.0 (metadata); per track (audio)",
    size="7.2 to 879 GiB",
    home="https://github.com/mdeff/fma",
    files=("tracks.csv", "genres.csv"),
    ids="fma",
    read=read,
    downloads=(
        Download(
            url="https://os.unil.cloud.switch.ch/fma/fma_metadata.zip",
            file="fma_metadata.zip",
            checksum="sha1:f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
            members=("fma_metadata/tracks.csv", "fma_metadata/genres.csv"),
        ),
    ),
    by_hand="the audio: fma_small.zip, fma_medium.zip, fma_large.zip or fma_full.zip",
    options={"subset": f"which tracks: {', '.join(SUBSETS)}"},
)
