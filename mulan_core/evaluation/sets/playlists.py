"""Sets of any user: a table of tracks with labels, texts, playlists; the workspace's own test split among them."""

from __future__ import annotations

from mulan_core.evaluation.sets.definition import SUITES, EvaluationSet

QUERIES = ("title", "description", "text")

OWN = EvaluationSet(
    name="own",
    title="The workspace's own test split",
    suites=SUITES,
    split="test of the workspace's catalogue",
    queries=QUERIES,
    needs="mulan prepare; in a checkout it is the demo, and called demo too",
)
"""What is measured without ``--on``; its report is the one that the gate reads."""

PLAYLISTS = EvaluationSet(
    name="playlists",
    title="Playlists by title and description",
    suites=("retrieval", "triplets"),
    split="test: all its tracks are candidates for every playlist",
    queries=("title", "description"),
    needs="a table of tracks (uri, track_id) and one of playlists (playlist_id, title, description, track_ids)",
)


def any_folder(name: str) -> EvaluationSet:
    """A prepared folder under a name of the user's: whatever its labels, playlists and texts allow."""
    return EvaluationSet(
        name=name, title=name, suites=SUITES, split="test of the prepared folder", queries=QUERIES, needs=""
    )
