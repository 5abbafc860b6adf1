"""AudioSet: 10-second segments of videos with labels out of an ontology.

The segment files have three comment lines, a blank after every comma, and the labels as one quoted list of ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mulan_core.errors import UserError
from mulan_core.readers.dataset import Dataset, Download, Track, recording_id
from mulan_core.readers.official import (
    find_file,
    find_optional,
    read_cells,
    read_rows,
    reading,
    shown,
    to_number,
)

SEGMENTS = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
}
MUSIC = "/m/04rlf"


def read(
    folder: Path,
    notes: list[str],
    *,
    music_only: bool = False,
    expand_parents: bool = False,
    whole_videos: bool = False,
) -> Iterator[Track]:
    """Segments of every official file in the folder."""
    names = read_names(folder)
    ontology = read_ontology(folder) if music_only or expand_parents else {}
    music = set(below(ontology, MUSIC)) if music_only else set()
    parents = find_parents(ontology, names) if expand_parents else {}
    files = [find_optional(folder, name) for name in SEGMENTS]
    if not any(files):
        raise UserError(f"there is no {' or '.join(SEGMENTS)} in {folder}; give the folder with the official files")
    for path in filter(None, files):
        for where, (ytid, start, end, ids) in read_segments(path):
            labels = ids.split(",")
            if music_only and music.isdisjoint(labels):
                continue
            if expand_parents:
                labels = list(dict.fromkeys(labels + [parent for label in labels for parent in parents.get(label, [])]))
            yield video_track(
                ytid,
                to_number(start, where, "start_seconds"),
                to_number(end, where, "end_seconds"),
                where,
                split=SEGMENTS[path.name],
                labels=name_labels(labels, names, where),
                whole_videos=whole_videos,
            )


def read_segments(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows of a segment file: video, first second, last second, label ids."""
    for where, cells in read_cells(path, skip_blanks=True, headers=0):
        if len(cells) != 4:
            raise UserError(f"{where}: {len(cells)} cells where a segment has 4 (video, start, end, quoted labels)")
        yield where, cells


def video_track(
    ytid: str,
    start_s: float,
    end_s: float,
    where: str,
    *,
    split: str,
    labels: list[str],
    whole_videos: bool,
    texts: dict[str, list[str]] | None = None,
) -> Track:
    """A segment of a video; its audio is named as the usual downloaders name it.

    Most of them cut the segment out, so the file is taken whole; with ``whole_videos`` it is the video's.

    Raises:
        UserError: if the segment ends before it starts.
    """
    if end_s <= start_s:
        raise UserError(f"{where}: the segment ends at {end_s:g} s, where it should start before, at {start_s:g} s")
    stems = (ytid, f"Y{ytid}", f"{ytid}_{round(start_s * 1000)}", f"[{ytid}]-[{round(start_s)}-{round(end_s)}]")
    return Track(
        track_id=recording_id("youtube", ytid),
        audio=tuple(f"{stem}.{ending}" for stem in stems for ending in ("wav", "flac", "mp3", "m4a", "opus", "ogg")),
        split=split,
        texts={**(texts or {}), "aset": labels},
        labels=labels,
        start_s=start_s if whole_videos else None,
        duration_s=end_s - start_s if whole_videos else None,
    )


def read_names(folder: Path) -> dict[str, str]:
    """Display name of each label id.

    Raises:
        UserError: if the folder has neither file that knows them.
    """
    path = find_file(folder, "class_labels_indices.csv", "ontology.json")
    if path.suffix == ".json":
        return {label: str(node["name"]) for label, node in read_ontology(folder).items()}
    return {row["mid"]: row["display_name"] for _, row in read_rows(path, ["mid", "display_name"])}


def name_labels(ids: Iterable[str], names: dict[str, str], where: str) -> list[str]:
    """Display names of label ids.

    Raises:
        UserError: for an id that has no name.
    """
    try:
        return [names[label.strip()] for label in ids if label.strip()]
    except KeyError as error:
        raise UserError(
            f"{where}: label {shown(error.args[0])} has no display name in the folder's label file"
        ) from error


def read_ontology(path: Path) -> dict[str, dict[str, Any]]:
    """Nodes of the ontology by id, out of ``ontology.json`` or the folder that has it.

    Raises:
        UserError: if there is no such file, or it is something else.
    """
    path = find_file(path, "ontology.json") if path.is_dir() else path
    try:
        with reading(path):
            nodes = {node["id"]: node for node in json.loads(path.read_text(encoding="utf-8"))}
        _ = [(node["name"], node["child_ids"], node["restrictions"]) for node in nodes.values()]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not AudioSet's ontology.json: {error!r}") from error
    return nodes


def below(ontology: dict[str, dict[str, Any]], root: str) -> dict[str, None]:
    """A node and all under it, each once, parents first; a node may have two parents."""
    nodes: dict[str, None] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node in ontology and node not in nodes:
            nodes[node] = None
            waiting += ontology[node]["child_ids"]
    return nodes


def find_parents(ontology: dict[str, dict[str, Any]], names: dict[str, str]) -> dict[str, list[str]]:
    """All labels above each node; abstract nodes ("Human sounds") and those without a name are none."""
    above: dict[str, list[str]] = {label: [] for label in ontology}
    for label, node in ontology.items():
        if label in names and "abstract" not in node["restrictions"]:
            for child in below(ontology, label):
                if child != label:
                    above[child].append(label)
    return above


GOOGLE = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"

DATASET = Dataset(
    name="audioset",
    title="AudioSet",
    tracks="2,084,320",
    about="segments of 10 s with labels; the evaluation part, 20,371 of them, is test",
    license="CC BY 4.0 (labels)",
    size="videos",
    home="https://research.google.com/audioset/",
    files=("one or more of " + ", ".join(SEGMENTS), "class_labels_indices.csv or ontology.json"),
    ids="youtube",
    read=read,
    downloads=(
        *(Download(url=GOOGLE + name, file=name) for name in (*SEGMENTS, "class_labels_indices.csv")),
        Download(
            url="https://raw.githubusercontent.com/audioset/ontology/master/ontology.json",
            file="ontology.json",
            checksum="sha256:9c685f4403eecc3ca9be37fd7285cf212feaaea6ff7229d3e7ca89e0d1f2d15d",
        ),
    ),
    options={
        "music_only": "keep segments with a label under Music; needs ontology.json",
        "expand_parents": "add the labels above each label; needs ontology.json",
        "whole_videos": "the audio files are whole videos, not the 10-second segments",
    },
)
