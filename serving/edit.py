"""The last word that the API had on a track: added or deleted, and which row of the catalogue it took the place of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.tracks import ADDED, is_added

FIELDS = ("title", "artist", "dataset", "labels")
UNKNOWN = "?"
"""In place of the content hash of a row whose collection was built by a version that hashed otherwise."""


@dataclass(frozen=True)
class Edit:
    """The last word that the API had on a track."""

    track_id: str
    kind: Literal["added", "deleted"]
    when: str
    """ISO 8601 in UTC, to the microsecond, so that texts compare as times do."""
    replaces: str = ""
    """Content hash of the catalogue's row that stood there before, or ``UNKNOWN``; empty where there was none."""
    fields: dict[str, Any] = field(default_factory=dict)
    """``FIELDS`` of a track that was added."""
    audio: str = ""
    """The name of its FLAC."""

    @property
    def mark(self) -> str:
        """The ``content_hash`` of its row: another one where fields or audio are others."""
        content = json.dumps([self.fields, self.audio], sort_keys=True)
        return f"{ADDED}:{hashlib.sha256(content.encode()).hexdigest()[:32]}"

    def holds(self, row_hash: str | None, built: str) -> bool:
        """Whether this word is newer than a collection's own row of the track.

        Args:
            row_hash: content hash of that row; None where there is none.
            built: when the collection was built, as ``when`` is written; empty if that is not known.
        """
        if not row_hash or is_added(row_hash) or self.keeps_out:
            return True
        # The catalogue's row is newer where it has changed since, and the collection was built of it afterwards. Where
        # nobody can tell whether it has, an upload stays.
        return self.replaces in (row_hash, UNKNOWN) or self.when > built

    @property
    def keeps_out(self) -> bool:
        """Whether the track is to be in no collection, whatever the catalogue says of it by now.

        The deletion of a track that no catalogue had means what was added, and nothing that a table brings later.
        """
        return self.kind == "deleted" and self.replaces != ""
