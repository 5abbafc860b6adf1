"""MTG-Jamendo: full tracks with tags of genre, instrument, and mood or theme.

Tab-separated with CRLF, and ragged: all fields from the sixth on are tags (``genre---rock``). A label is the official
tag in our notation (``genre:easylistening``); the text is spelled as people write it ("easy listening").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Download, Track, check_choice, recording_id
from mulan_core.readers.official import check_header, find_file, find_optional, read_cells, read_rows, shown

SUBSETS = ("all", "genre", "instrument", "moodtheme", "top50tags")
PARTS = {"train": "train", "validation": "valid", "test": "test"}
HEADER = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")

SPELLED = {
    "acidjazz": "acid jazz",
    "acousticbassguitar": "acoustic bass guitar",
    "acousticguitar": "acoustic guitar",
    "alternativerock": "alternative rock",
    "bluesrock": "blues rock",
    "bossanova": "bossa nova",
    "classicalguitar": "classical guitar",
    "classicrock": "classic rock",
    "darkambient": "dark ambient",
    "deephouse": "deep house",
    "doublebass": "double bass",
    "drumnbass": "drum and bass",
    "drummachine": "drum machine",
    "easylistening": "easy listening",
    "edm": "electronic dance music",
    "electricguitar": "electric guitar",
    "electricpiano": "electric piano",
    "ethnicrock": "ethnic rock",
    "hardrock": "hard rock",
    "heavymetal": "heavy metal",
    "hiphop": "hip hop",
    "instrumentalpop": "instrumental pop",
    "instrumentalrock": "instrumental rock",
    "jazzfunk": "jazz funk",
    "jazzfusion": "jazz fusion",
    "newage": "new age",
    "newwave": "new wave",
    "pipeorgan": "pipe organ",
    "popfolk": "pop folk",
    "poprock": "pop rock",
    "postrock": "post-rock",
    "punkrock": "punk rock",
    "rnb": "R&B",
    "rocknroll": "rock and roll",
    "singersongwriter": "singer-songwriter",
    "synthpop": "synth pop",
    "triphop": "trip hop",
    "worldfusion": "world fusion",
}
"""Tags that run words together, as people write them."""


def read(folder: Path, notes: list[str], *, subset: str = "all", split: int = 0) -> Iterator[Track]:
    """Tracks of the three files of one subset and one of the five official splits."""
    check_choice("subset", subset, SUBSETS)
    names = _read_names(folder)
    for part, ours in PARTS.items():
        path = find_file(folder, *_places(subset, split, part))
        rows = read_cells(path, delimiter="\t")
        check_header(path, next(rows, ("", []))[1], HEADER, "\t")
        for where, cells in rows:
            if len(cells) < len(HEADER):
                raise UserError(f"{where}: {len(cells)} cells; a track has {', '.join(HEADER)} and maybe more tags")
            track_id, artist_id, _, mp3, _, *tags = cells
            labels = [to_label(tag, where) for tag in tags if tag]
            title, artist = names.get(track_id, (None, None))
            yield Track(
                track_id=recording_id("jamendo", track_id),
                audio=(mp3, mp3.removesuffix(".mp3") + ".low.mp3"),
                split=ours,
                texts={"sf": [spell(label) for label in labels]},
                labels=labels,
                title=title or None,
                artist=artist or artist_id,
            )


def to_label(tag: str, where: str) -> str:
    """``genre---rock`` as ``genre:rock``.

    Raises:
        UserError: if the tag has no category.
    """
    category, dashes, name = tag.strip().partition("---")
    if not dashes:
        raise UserError(f"{where}: tag {shown(tag)} is not CATEGORY---NAME")
    return f"{category}:{name}"


def spell(label: str) -> str:
    """The name of a label as people write it.

    >>> spell("genre:easylistening"), spell("mood/theme:sad")
    ('easy listening', 'sad')
    """
    name = label.partition(":")[2]
    return SPELLED.get(name, name)


def _places(subset: str, split: int, part: str) -> list[str]:
    name = f"autotagging{'' if subset == 'all' else '_' + subset}-{part}.tsv"
    return [f"splits/split-{split}/{name}", f"data/splits/split-{split}/{name}", f"split-{split}/{name}"]


def _read_names(folder: Path) -> dict[str, tuple[str, str]]:
    """Title and artist of each track, where ``raw.meta.tsv`` is there."""
    path = find_optional(folder, "raw.meta.tsv", "data/raw.meta.tsv")
    if path is None:
        return {}
    rows = read_rows(path, ["TRACK_ID", "TRACK_NAME", "ARTIST_NAME"], delimiter="\t")
    return {row["TRACK_ID"]: (row["TRACK_NAME"], row["ARTIST_NAME"]) for _, row in rows}


REPOSITORY = "https://raw.githubusercontent.com/MTG/mtg-jamendo-dataset/master/data/"
CHECKSUMS = {
    "autotagging-test.tsv": "c80e43416e89afc0b2656848e9d4d6f076ca0426003d7e0148ac8cdc6254d366",
    "autotagging-validation.tsv": "b93639bc4f716148e7a41e35e9a1d73058a0b9e65c1cc723b66e9e72726072a7",
    "autotagging_genre-test.tsv": "cf917388eebfa7d17d363c2fca037e2379ac027e31aa6dbe92e8dbf409ac5098",
    "autotagging_genre-train.tsv": "c1cddb195ef94a07e67e227bf38e2a79389c1820950702b8c8894a2096f21e54",
    "autotagging_genre-validation.tsv": "3e203b4c573db6ec63a06c7066cf678dcf673a68ad5694c8fed22637c270dbcf",
    "autotagging_instrument-test.tsv": "8c1ab86f3212b6484106baf2e78f70dd5520b917607487ac98999adbd5d7ab1a",
    "autotagging_instrument-train.tsv": "f844a85f0b40bb31a5d5b448ddfc10a68d7b38ecc760673d23df2bd6e7ca0f4c",
    "autotagging_instrument-validation.tsv": "a5060020013ac5ba65c6470ee83fc2a9785db1fe554b55065de08aa9b0cca70d",
    "autotagging_moodtheme-test.tsv": "4341b5586bb3e5a80a882ce9ef33cb8b1bdaa7df856246ecc5de188dfe1cf394",
    "autotagging_moodtheme-train.tsv": "e5e9e798364b34bd241b773e5011809b24429edf471f27cf21dd8181077ba2d4",
    "autotagging_moodtheme-validation.tsv": "ecaa279367153476884d84d686479e566234cef1814bd6892a8755ba0a550dbf",
    "autotagging_top50tags-test.tsv": "3ede06a35e6cb27e1dbe8cfc84708a607622e30e5cd0a7199fce6c081124bc35",
    "autotagging_top50tags-train.tsv": "6dee445ddd1901286184c2059d3d5eef7486f083ae80de9011705f852a850dde",
    "autotagging_top50tags-validation.tsv": "4f5f0f0a7662f523b45727476f67d799d6e98151b2c585a8e94e19d980ad93c1",
    "autotagging-train.tsv": None,
}
"""sha256 of the files of split 0."""

DATASET = Dataset(
    name="mtg_jamendo",
    title="MTG-Jamendo",
    tracks="55,525",
    about="full tracks with 183 tags in five splits; split 0, top 50 tags: 32,136 train, 10,888 valid, 11,356 test",
    license="CC BY-NC-SA 4.0 (tags); CC, per track (audio)",
    size="508 GB",
    home="https://github.com/MTG/mtg-jamendo-dataset",
    files=("splits/split-N/autotagging[_SUBSET]-{train,validation,test}.tsv", "[raw.meta.tsv, for titles]"),
    ids="jamendo",
    read=read,
    downloads=(
        *(
            Download(
                url=f"{REPOSITORY}splits/split-0/{name}",
                file=f"splits/split-0/{name}",
                checksum=f"sha256:{digest}" if digest else None,
            )
            for name, digest in CHECKSUMS.items()
        ),
        Download(url=REPOSITORY + "raw.meta.tsv", file="raw.meta.tsv"),
    ),
    by_hand="the audio, by the repository's scripts/download/download.py; splits 1 to 4, out of the repository",
    options={
        "subset": f"which tags: {', '.join(SUBSETS)}",
        "split": "which of the five official splits, 0 to 4",
    },
)
