"""MagnaTagATune: 29-second clips with 188 tags.

The annotations are tab-separated: ``clip_id``, one column of 0 and 1 a tag, ``mp3_path``. The folder that a path
starts with decides the split that papers use: 0-9, a and b train, c valid, d, e and f test.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Download, Track, recording_id
from mulan_core.readers.official import find_file, find_optional, read_rows, reading, shown

BROKEN = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
"""Clips without a byte in the official archive."""

SPLITS = {**dict.fromkeys("0123456789ab", "train"), "c": "valid", **dict.fromkeys("def", "test")}
NAME = re.compile(r"[0-9a-f]/(?P<artist>[^-]+)-.+-\d\d-(?P<title>.+)-\d+-\d+\.mp3")


def read(
    folder: Path, notes: list[str], *, top: int = 0, drop_untagged: bool = False, synonyms: str = ""
) -> Iterator[Track]:
    """Clips of ``annotations_final.csv``, with the titles of ``clip_info_final.csv`` where it is there."""
    path = find_file(folder, "annotations_final.csv")
    merged = _read_synonyms(Path(synonyms)) if synonyms else {}
    info = _read_info(folder)
    clips = list(_read_annotations(path, merged))
    counted = Counter(tag for *_, tags in clips for tag in tags)
    wanted = {tag for tag, _ in counted.most_common(top or None)}
    broken = sum(mp3 in BROKEN for _, _, mp3, _ in clips)
    if broken:
        notes.append(f"{broken} clips left out that are empty in the official archive")
    for where, clip_id, mp3, tags in clips:
        labels = [tag for tag in tags if tag in wanted]
        if mp3 not in BROKEN and (labels or not drop_untagged):
            yield clip_track(mp3, where, tags=tags, labels=labels, info=info.get(clip_id, {}))


def _read_annotations(path: Path, merged: dict[str, str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Place in words, clip id, path and tags of each clip that has a path."""
    for where, row in read_rows(path, ["clip_id", "mp3_path"], delimiter="\t"):
        clip_id, mp3 = row.pop("clip_id"), row.pop("mp3_path")
        tags = [tag for tag, cell in row.items() if cell == "1"]
        if len(tags) + list(row.values()).count("0") != len(row):
            tag, cell = next((tag, cell) for tag, cell in row.items() if cell not in ("0", "1"))
            raise UserError(f"{where}, column {shown(tag)}: expected 0 or 1, got {shown(cell)}")
        if mp3:
            yield where, clip_id, mp3, list(dict.fromkeys(merged.get(tag, tag) for tag in tags))


def clip_track(
    mp3: str,
    where: str,
    *,
    tags: list[str],
    labels: list[str],
    info: dict[str, str],
    captions: list[str] | None = None,
) -> Track:
    """A clip; what its information lacks is in the name of its file, with _ for blanks."""
    if mp3[:1] not in SPLITS or mp3[1:2] != "/":
        raise UserError(
            f"{where}, column 'mp3_path': expected FOLDER/NAME.mp3 with FOLDER in 0-9, a-f, got {shown(mp3)}"
        )
    named = NAME.fullmatch(mp3)
    from_name = {key: value.replace("_", " ").strip() for key, value in named.groupdict().items()} if named else {}
    return Track(
        track_id=recording_id("mtat", mp3),
        audio=(mp3, mp3.partition("/")[2]),
        split=SPLITS[mp3[0]],
        texts={"sf": tags, "lf": captions or []},
        labels=labels,
        title=info.get("title") or from_name.get("title"),
        artist=info.get("artist") or from_name.get("artist"),
    )


def _read_info(folder: Path) -> dict[str, dict[str, str]]:
    path = find_optional(folder, "clip_info_final.csv")
    if path is None:
        return {}
    return {row["clip_id"]: row for _, row in read_rows(path, ["clip_id", "title", "artist"], delimiter="\t")}


def _read_synonyms(path: Path) -> dict[str, str]:
    """Tag -> the first of its group, out of a JSON list of groups."""
    try:
        with reading(path):
            groups = json.loads(path.read_text(encoding="utf-8"))
        return {str(tag): str(group[0]) for group in groups for tag in group}
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise UserError(f"{path}: synonyms are a JSON list of lists of tags ({error})") from error


CITY = "https://mirg.city.ac.uk/datasets/magnatagatune/"

DATASET = Dataset(
    name="magnatagatune",
    title="MagnaTagATune",
    tracks="25,863",
    about="clips of 29 s with 188 tags; usable are 18,706 train, 1,825 valid, 5,329 test",
    license="CC BY-NC-SA 3.0",
    size="3 GB",
    home="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    files=("annotations_final.csv", "[clip_info_final.csv, for titles]"),
    ids="mtat",
    read=read,
    downloads=tuple(Download(url=CITY + name, file=name) for name in ("annotations_final.csv", "clip_info_final.csv")),
    by_hand="the audio: mp3.zip.001 to .003 put together, then unpacked",
    options={
        "top": "labels are the N most frequent tags (papers: 50); 0 keeps all 188",
        "drop_untagged": "leave out clips without one of those labels",
        "synonyms": "JSON file with groups of tags to merge into the first of each",
    },
)
