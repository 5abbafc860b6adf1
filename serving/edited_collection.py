"""A collection and what was added to it and deleted from it over the API: one edit, or all of them before it goes live.

Who adds or deletes a track writes its record first, then the collection. Whoever applies the records does one in the
collection and reads it again; where somebody has written it meanwhile, the newer one is done too. So the last of
several processes leaves what the newest record says, and none has to wait for another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mulan_core.audio.decode import AudioError
from serving.edit import UNKNOWN, Edit
from serving.edits import Edits
from serving.store import TrackStore
from serving.tracks import ADDED, is_added

Encode = Callable[[bytes], tuple[np.ndarray, list[dict[str, Any]]]]
"""The FLAC of a track to its unit vector (D,) and its windows; see ``Encoder.encode_flac``."""
AT_ONCE = 64
"""Tracks that are encoded before they are written."""


@dataclass(frozen=True)
class Heard:
    """The audio of a track that is to be added."""

    flac: bytes
    """As it is kept; see ``to_flac``."""
    vector_D: np.ndarray
    windows: list[dict[str, Any]]


@dataclass(frozen=True)
class Applied:
    """What the edits came to in a collection."""

    added: int = 0
    """Tracks in it that were added over the API."""
    deleted: int = 0
    """Tracks that were deleted over the API, and are not in it."""
    superseded: list[str] = field(default_factory=list)
    """Tracks that were added, or added and deleted, and that the catalogue itself has in a newer state."""
    left: list[str] = field(default_factory=list)
    """Tracks that were added and are not in it, since their audio is gone."""


@dataclass(frozen=True)
class EditedCollection:
    """A collection by its name, and the edits of its catalogue."""

    store: TrackStore
    edits: Edits
    name: str

    def add(self, fields: Mapping[str, Any], heard: Heard) -> dict[str, Any]:
        """Add a track, in place of one of its id; returns its row.

        Raises:
            StoreError: if it cannot be written; then everything is as it was.
        """
        track_id = str(fields["track_id"])
        self._keep([track_id])
        with self.edits.adding(track_id, fields, heard.flac, row_hash=self._row_hash(track_id)) as edit:
            row = self._row(edit, heard.vector_D)
            own = [window | {"track_id": track_id} for window in heard.windows]
            self.store.upsert(self.name, [row], windows=own)
        return row

    def delete(self, track_id: str) -> bool:
        """Delete a track; whether it was there. See ``add``."""
        self._keep([track_id])
        with self.edits.deleting(track_id, row_hash=self._row_hash(track_id)):
            return bool(self.store.delete(self.name, [track_id]))

    def apply(self, encode: Encode, *, source: str | None = None, anew: bool = False) -> Applied:
        """Have the collection hold what was added, and not what was deleted; once more, it does nothing.

        Args:
            encode: of the collection's model.
            source: another collection of the same model, whose vectors need not be made again.
            anew: write what was added again, as for windows that the collection did not have before.

        Raises:
            UserError: if Milvus is away, or a record cannot be read.
        """
        last: dict[str, Edit | None] = {edit.track_id: edit for edit in self.edits.all()}
        unnamed = {*self._marked(), *self.edits.taken_back(self.name)} - last.keys()
        last |= {track_id: self.edits.get(track_id) for track_id in unnamed}
        superseded: set[str] = set()
        turn = last
        while turn:
            hashes = self.store.hashes(list(turn), collection=self.name)
            newer, written = self._do(turn, hashes, encode, source, anew=anew)
            superseded = (superseded - turn.keys()) | newer
            turn = {name: edit for name in written if (edit := self.edits.get(name)) != turn[name]}
            last, anew = last | turn, False
        kinds = [edit.kind for name, edit in last.items() if edit is not None and name not in superseded]
        wanted = [name for name, edit in last.items() if edit and edit.kind == "added" and name not in superseded]
        left = sorted(set(wanted) - self.store.hashes(wanted, collection=self.name).keys())
        return Applied(len(wanted) - len(left), kinds.count("deleted"), sorted(superseded), left)

    def _do(
        self,
        turn: Mapping[str, Edit | None],
        hashes: Mapping[str, str],
        encode: Encode,
        source: str | None,
        *,
        anew: bool,
    ) -> tuple[set[str], list[str]]:
        """Do some edits; returns which of them the catalogue's rows are newer than, and which tracks were written.

        None in place of an edit says that it was taken back: then the catalogue's own row counts.
        """
        own = {name for name, mark in hashes.items() if not is_added(mark)}
        built = self._built()
        newer = {name for name, edit in turn.items() if edit is not None and not edit.holds(hashes.get(name), built)}
        back = self._put_back([name for name, edit in turn.items() if edit is None and name not in own])
        to_delete = {name for name, edit in turn.items() if edit is None and name not in own.union(back)}
        to_delete |= {name for name, edit in turn.items() if edit and edit.kind == "deleted" and name not in newer}
        deleted = sorted(to_delete & hashes.keys())
        added = {name: edit for name, edit in turn.items() if edit and edit.kind == "added" and name not in newer}
        missing = {name: edit for name, edit in added.items() if anew or hashes.get(name) != edit.mark}
        self._keep([*deleted, *missing])
        self.store.delete(self.name, deleted)
        return newer, [*back, *deleted, *self._put(missing, encode, source)]

    def _keep(self, track_ids: Sequence[str]) -> None:
        """Keep the catalogue's own rows of tracks, which are about to go, for when the edits are taken back."""
        hashes = self.store.hashes(track_ids, collection=self.name)
        own = [track_id for track_id, mark in hashes.items() if not is_added(mark)]
        if not own:
            return
        has_windows = self.store.windows.count(self.name) > 0
        for track_id, (track, vector_D) in self.store.tracks.get(own, collection=self.name).items():
            windows = self.store.windows.get([track_id], collection=self.name) if has_windows else []
            row = asdict(track) | {"vector": vector_D, "content_hash": hashes[track_id]}
            self.edits.keep_row(self.name, row, windows)

    def _put_back(self, track_ids: Sequence[str]) -> list[str]:
        """Write the catalogue's own rows again where they are kept; returns the ids of those."""
        kept = [found for track_id in track_ids if (found := self.edits.kept_row(self.name, track_id))]
        rows = [row for row, _ in kept]
        if rows:
            self.store.upsert(self.name, rows, windows=[window for _, windows in kept for window in windows])
        return [row["track_id"] for row in rows]

    def _put(self, missing: Mapping[str, Edit], encode: Encode, source: str | None) -> Iterator[str]:
        """Write tracks that were added; yields the ids of those that could be."""
        if source and source != self.name:
            there = self.store.hashes(list(missing), collection=source)
            copied = {name: edit.mark for name, edit in missing.items() if there.get(name) == edit.mark}
            self.store.copy(copied, source, self.name)
            yield from copied
            missing = {name: edit for name, edit in missing.items() if name not in copied}
        rest = list(missing.values())
        for first in range(0, len(rest), AT_ONCE):
            rows: list[dict[str, Any]] = []
            windows: list[dict[str, Any]] = []
            for edit in rest[first : first + AT_ONCE]:
                with contextlib.suppress(AudioError):  # it is damaged
                    if flac := self.edits.audio(edit):
                        vector_D, own = encode(flac)
                        rows.append(self._row(edit, vector_D))
                        windows += [window | {"track_id": edit.track_id} for window in own]
            self.store.upsert(self.name, rows, windows=windows)
            yield from [row["track_id"] for row in rows]

    def _marked(self) -> list[str]:
        """Tracks whose rows are of an edit; its record may have been removed since."""
        marked = [pair for page in self.store.scroll(self.name, only_added=True) for pair in page]
        return [track_id for track_id, mark in marked if mark != ADDED]

    def _row_hash(self, track_id: str) -> str | None:
        """Content hash of the row that an edit takes the place of."""
        row_hash = self.store.hashes([track_id], collection=self.name).get(track_id)
        if row_hash is None and self.edits.get(track_id) is None:
            kept = self.edits.kept_row(self.name, track_id)  # an edit was taken back, and this is not applied yet
            row_hash = kept[0]["content_hash"] if kept else None
        if row_hash is None or is_added(row_hash):
            return row_hash
        return row_hash if self._built() else UNKNOWN

    def _built(self) -> str:
        """When it was built; empty for one of a version that hashed rows otherwise."""
        return self.store.collections.describe(self.name).properties.get("built", "")

    def _row(self, edit: Edit, vector_D: np.ndarray) -> dict[str, Any]:
        named = {"track_id": edit.track_id, "title": edit.fields["title"] or edit.track_id, "vector": vector_D}
        return edit.fields | named | {"media_path": self.edits.media_path(edit), "content_hash": edit.mark}
