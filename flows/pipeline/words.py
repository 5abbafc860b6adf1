"""Sentences about what a stage made, the same on the terminal and on Prefect's page; no library is needed for them."""

from __future__ import annotations

from typing import Any

from mulan_core.counts import counted

MAX_NAMED = 20
"""Tracks that a sentence names."""


def recall_words(built: dict[str, Any]) -> str:
    """Recall of an index as measured by its build, without and with filters."""
    filtered = built.get("filtered_recall", {})
    values = ", ".join(f"{value:.3f} of {percent} %" for percent, value in filtered.items())
    return f"{built['recall_at_10']:.3f}" + (f"; under filters that leave a share: {values}" if values else "")


MENDED = {
    "missing": "were missing",
    "gone": "are not in the catalogue any more",
    "mark": "have only the mark of an earlier version",
    "media_path": "another file",
}
"""Why a row of a collection was put right, where the reason is no field of a track."""


def mended_words(built: dict[str, Any]) -> str:
    """How many tracks of a collection that stood were put right, and why; empty where none was."""
    why = ", ".join(f"{number:,} {MENDED.get(reason, reason)}" for reason, number in built["mended_for"].items())
    return f"{counted(built['mended'], 'track')} of it put right ({why})" if built["mended"] else ""


def edits_words(edits: dict[str, Any] | None) -> list[str]:
    """What was added and deleted over the API, as it came to a release, in sentences; see ``Live.bring_edits``."""
    words = []
    if edits and (edits["added"] or edits["deleted"]):
        words.append(
            f"over the API: {counted(edits['added'], 'track')} added, in it; {edits['deleted']:,} deleted, not in it; "
            "`mulan catalogue edits` lists them"
        )
    if edits and edits["superseded"]:
        such = _named(edits["superseded"])
        newer = counted(len(edits["superseded"]), "track of these is", "tracks of these are")
        words.append(f"{newer} newer in the catalogue, which counts: {such}")
    if edits and edits["left"]:
        left = counted(len(edits["left"]), "track that was", "tracks that were")
        words.append(
            f"not in it: {left} added over the API, since the audio is gone or was not kept; add again, or to the "
            f"manifest: {_named(edits['left'])}"
        )
    return words


def gate_words(release: dict[str, Any]) -> str:
    """The gate's word on a release; of a borrowed model it says on which catalogue that was measured."""
    gate, judged_on = release["gate"], release["judged_on"]
    return f"{gate} (the model of {judged_on}, measured on its tracks, not on these)" if gate and judged_on else gate


def served_words(done: dict[str, Any]) -> str:
    """Where a release is served, or why it is not and what to do."""
    return f"served at {done['url']}" if done["url"] else f"not served: {done['not_served']}"


def _named(ids: list[str]) -> str:
    return ", ".join(ids[:MAX_NAMED]) + (" ..." if len(ids) > MAX_NAMED else "")
