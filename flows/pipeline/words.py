"""Sentences about what a stage made, the same on the terminal and on Prefect's page; no library is needed for them."""

from __future__ import annotations

from typing import Any

MAX_NAMED = 20
"""Tracks that a sentence names."""


def recall_words(built: dict[str, Any]) -> str:
    """Recall of an index as measured by its build, without and with filters."""
    filtered = built.get("filtered_recall", {})
    values = ", ".join(f"{value:.3f} of {percent} %" for percent, value in filtered.items())
    return f"{built['recall_at_10']:.3f}" + (f"; under filters that leave a share: {values}" if values else "")


def added_words(added: dict[str, Any] | None) -> list[str]:
    """What became of tracks that were added over the API, in sentences; see ``go_live``."""
    words = []
    if added and added["carried"]:
        words.append(f"{added['carried']:,} tracks that were added over the API went along")
    if added and added["left"]:
        such = ", ".join(added["left"][:MAX_NAMED]) + (" ..." if len(added["left"]) > MAX_NAMED else "")
        words.append(
            f"{len(added['left']):,} tracks that were added over the API stayed behind, since this model is another "
            f"and their audio was not kept; add them again, or to the manifest: {such}"
        )
    return words
