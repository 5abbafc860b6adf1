"""Sets of texts alone, for the text tower: an anchor and its own description, against the descriptions of others.

The paper's section 4.4 has two: AudioSet's ontology, and playlists. Any table with the columns ``title`` and
``description`` makes another.
"""

from __future__ import annotations

from pathlib import Path

from mulan_core.errors import UserError
from mulan_core.evaluation.sets.definition import EvaluationSet, Pair
from mulan_core.readers.audioset import MUSIC, below, read_ontology

COLUMNS = ("title", "description")


def read_ontology_pairs(path: Path, notes: list[str], *, root: str = MUSIC) -> list[Pair]:
    """Names and descriptions of the classes under one of an ontology, itself included.

    Args:
        path: AudioSet's ``ontology.json``, or its folder.
        notes: what a person should know is appended.
        root: a class id; the default is "Music", with 189 classes.

    Raises:
        UserError: if the file is not such an ontology, or has no such class.
    """
    ontology = read_ontology(path)
    if root not in ontology:
        raise UserError(f"{path} has no class {root}; give AudioSet's own ontology.json")
    classes = [ontology[label] for label in below(ontology, root)]
    described = [(str(node["name"]), str(node["description"])) for node in classes if node.get("description")]
    _note_left_out(notes, len(classes) - len(described), "classes have no description")
    return described


def read_text_pairs(path: Path, notes: list[str]) -> list[Pair]:
    """Rows of a table that have a title and a description; of a table of playlists those of the test split.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file with the columns ``title`` and ``description``.
        notes: what a person should know is appended.

    Raises:
        UserError: if there is no such file or column, or a row is not text.
    """
    from mulan_core.data.tables import Problems, open_table

    problems = Problems(str(path))
    pairs: list[Pair] = []
    rows = last = 0
    columns: dict[str, None] = {}
    with open_table(path, problems, wanted=[*COLUMNS, "split"]) as table:
        for chunk in table.chunks:
            for number, row in zip(chunk.numbers, chunk.rows, strict=True):
                columns |= dict.fromkeys(row)
                last = number
                values = [row.get(name) or "" for name in COLUMNS]
                if not all(isinstance(value, str) for value in values):
                    problems.add(number, "title and description must be text")
                elif row.get("split") in (None, "", "test"):
                    rows += 1
                    title, description = (value.strip() for value in values)
                    if title and description:
                        pairs.append((title, description))
        columns |= dict.fromkeys(table.columns)
    for name in COLUMNS:
        if name not in columns:
            raise UserError(f"{path} has no column {name!r}; found: {', '.join(columns) or 'nothing'}")
    problems.raise_any(last)
    _note_left_out(notes, rows - len(pairs), "rows have no title or no description")
    return pairs


def _note_left_out(notes: list[str], number: int, why: str) -> None:
    if number:
        notes.append(f"{number:,} {why}: left out.")


ONTOLOGY = EvaluationSet(
    name="ontology-triplets",
    title="AudioSet's ontology, music subtree",
    suites=("triplets",),
    split="Music and all below it: 189 labels and descriptions, all 189 x 188 triplets",
    read_pairs=read_ontology_pairs,
    pair_set="ontology",
    fetched="audioset/ontology.json",
    needs="mulan data fetch audioset (ontology.json)",
)
PLAYLIST_TRIPLETS = EvaluationSet(
    name="playlist-triplets",
    title="Playlist titles and descriptions",
    suites=("triplets",),
    split="test playlists, all triplets",
    read_pairs=read_text_pairs,
    pair_set="playlist",
    needs="a table of playlists (title, description); no audio, no tracks",
)


def any_table(name: str) -> EvaluationSet:
    """A table of titles and descriptions under a name of the user's."""
    return EvaluationSet(
        name=name,
        title=name,
        suites=("triplets",),
        split="all rows of the table, all triplets",
        read_pairs=read_text_pairs,
        pair_set=name,
        needs="",
    )


SETS = (ONTOLOGY, PLAYLIST_TRIPLETS)
