"""From the query log back into evaluation: queries with the tracks that people chose, as playlists.

A playlist is a query: its title the words, its tracks what was chosen among what was shown, the most chosen first. Only
searches by one text without negatives say what words alone should find; the others are counted and left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from mulan_core.counts import counted
from mulan_core.errors import UserError


def to_playlists(lines: Iterable[Mapping[str, Any]], *, least: int = 1) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Playlists from the lines of a query log, in any order.

    Args:
        lines: as ``read_query_log`` gives them.
        least: how often a track must have been chosen for a query.

    Returns:
        Rows with playlist_id, title, description and track_ids, the query with most choices first; and counts:
        searches, choices, used, unseen (chosen, but not among what that search showed), other (not one text).

    Raises:
        UserError: if the log holds hashes alone, or no choice that can be used.
    """
    counts = Counter(searches=0, choices=0, used=0, unseen=0, other=0)
    shown: dict[str, tuple[str | None, set[str]]] = {}
    chosen: dict[tuple[str, str], None] = {}
    hashed = False
    for line in lines:
        if line.get("kind") == "search":
            counts["searches"] += 1
            query = line["query"]
            text = query[0].get("text") if len(query) == 1 else None
            hashed = hashed or any("text_hash" in part for part in query)
            _, before = shown.get(line["request_id"], (None, set()))
            shown[line["request_id"]] = (text, before | set(line["hits"]))
        elif line.get("kind") == "feedback":
            # A choice is told again where the answer to it was lost, and by who clicks twice; it counts once.
            chosen.setdefault((line["request_id"], line["track_id"]))
    counts["choices"] = len(chosen)
    tracks: defaultdict[str, Counter[str]] = defaultdict(Counter)
    titles: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for request_id, track_id in chosen:
        text, hits = shown.get(request_id, (None, set()))
        if track_id not in hits:
            counts["unseen"] += 1
        elif text is None:
            counts["other"] += 1
        else:
            words = " ".join(text.lower().split())
            tracks[words][track_id] += 1
            titles[words][" ".join(text.split())] += 1
            counts["used"] += 1
    rows = []
    for words, times in sorted(tracks.items(), key=lambda item: (-item[1].total(), item[0])):
        track_ids = [track_id for track_id, number in times.most_common() if number >= least]
        if track_ids:
            title = titles[words].most_common(1)[0][0]
            playlist_id = f"query-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
            rows.append({"playlist_id": playlist_id, "title": title, "description": "", "track_ids": track_ids})
    if not rows:
        if hashed:
            raise UserError("the query log holds hashes, no words; set serve.query_log to full to learn from queries")
        raise UserError(
            f"the query log has nothing to export: {counted(counts['searches'], 'search', 'searches')}, "
            f"{counted(counts['choices'], 'choice')}; "
            "set serve.query_log to full, and send what people choose to /v1/feedback"
        )
    return rows, dict(counts)
