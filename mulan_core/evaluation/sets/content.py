"""What an evaluation set holds once its files are read: tracks and labels, queries with their answers, pairs of texts.

The suite measures this and nothing else, so a set may come from anywhere: a prepared folder, a table, a test.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mulan_core.evaluation.sets.definition import Pair


@dataclass(frozen=True, kw_only=True)
class Query:
    """A text and the tracks that answer it."""

    id: str | None
    """The playlist's; None for a text of the track itself."""
    text: str
    track_ids: Sequence[str]
    """Distinct tracks of the test split."""
    source: str | None = None
    """Where a text of the track itself comes from (aset, sf, lf); None for any other, or where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """One evaluation set, read."""

    tracks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> its tracks; ``test`` is ranked, ``train`` and ``valid`` serve the probe. Empty for texts alone."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Track -> labels, ``facet:Name`` or plain."""
    classes: Sequence[str] | None = None
    """The class list; None takes the labels of the test tracks."""
    class_texts: Mapping[str, str] = field(default_factory=dict)
    """Label -> its text, where that is not the label's name."""
    queries: Mapping[str, Sequence[Query]] = field(default_factory=dict)
    """Kind of query (``definition.QUERY_SETS``) -> queries; a kind that the set lacks is an empty list."""
    pairs: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    """Name of the triplets -> anchors and descriptions."""
    all_triplets: bool = False
    """Use every triplet, however many; False draws ``evaluate.num_triplets`` where there are more."""
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Track -> the data set that it comes from, where that is known."""
    held_out: Collection[str] = ()
    """Tracks whose combination of attributes was kept out of training; tagged apart as well."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts that only the reader knows."""
    notes: Sequence[str] = ()
    """What a person should know of how it was read."""


def playlist_content(
    playlists: Sequence[Mapping[str, Any]], test_ids: Collection[str], kinds: Sequence[str] = ("title", "description")
) -> tuple[dict[str, list[Query]], list[Pair], list[str]]:
    """Queries, pairs and notes out of playlists.

    Args:
        playlists: rows with playlist_id, title, description, track_ids and optionally split; only those of the test
            split count, and of them only their distinct tracks in the test split.
        test_ids: the test tracks.
        kinds: ``title``, ``description``.

    Returns:
        Per kind the queries; the pairs of title and description; what was left out, in sentences.
    """
    known_ids = set(test_ids)
    rows = [row for row in playlists if row.get("split", "test") == "test"]
    queries: dict[str, list[Query]] = {kind: [] for kind in kinds}
    pairs: list[Pair] = []
    left_out = 0
    for row in rows:
        track_ids = [track_id for track_id in dict.fromkeys(row["track_ids"]) if track_id in known_ids]
        if not track_ids:
            left_out += 1
            continue
        texts = {kind: (row.get(kind) or "").strip() for kind in ("title", "description")}
        for kind in kinds:
            if texts[kind]:
                queries[kind].append(Query(id=row["playlist_id"], text=texts[kind], track_ids=track_ids))
        if texts["title"] and texts["description"]:
            pairs.append((texts["title"], texts["description"]))
    notes = [f"{left_out} playlists left out: none of their tracks is in the test split."] if left_out else []
    return queries, pairs, notes


def text_queries(texts: Mapping[str, Sequence[str]], sources: Mapping[str, str] | None = None) -> list[Query]:
    """One query for each distinct text of the tracks; all tracks that carry it are its answers.

    Args:
        texts: track -> its texts.
        sources: text -> where it comes from, for those where that is known.
    """
    answers: dict[str, dict[str, None]] = {}
    for track_id, track_texts in texts.items():
        for text in track_texts:
            if text.strip():
                answers.setdefault(text.strip(), {})[track_id] = None
    source_of = sources or {}
    return [Query(id=None, text=text, track_ids=list(ids), source=source_of.get(text)) for text, ids in answers.items()]
