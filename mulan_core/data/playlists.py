"""Playlists beside their tracks: whether the two tables belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mulan_core.errors import UserError


def check_known(playlists: Iterable[Mapping[str, Any]], chunks: Iterable[Iterable[str]]) -> None:
    """Refuse playlists that name tracks which are nowhere: the two tables do not belong together.

    Args:
        playlists: rows with playlist_id and track_ids.
        chunks: of track ids; what grows here is the playlists' own ids, not the catalogue's.

    Raises:
        UserError: naming the first playlist and track, and how many there are.
    """
    named: dict[str, str] = {}
    for playlist in playlists:
        for track_id in playlist["track_ids"]:
            named.setdefault(track_id, playlist["playlist_id"])
    total = len(named)
    for chunk in chunks:
        for track_id in chunk:
            named.pop(track_id, None)
    if named:
        track_id, playlist_id = next(iter(named.items()))
        raise UserError(
            f"playlist {playlist_id!r} names the track {track_id!r}, which the tracks' table does not have; "
            f"{len(named):,} of {total:,} tracks in the playlists are unknown; give both tables the same ids"
        )
