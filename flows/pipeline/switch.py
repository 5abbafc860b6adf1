"""The one way to another release: endpoint, registry and Milvus go over together, or all of them stay.

The release that the endpoint answers with is the truth; the registry's champion and Milvus' alias follow it. A journal
says what they were and what they are to be until all three agree. Where the process dies in between, the next command
reads it: it goes on where the endpoint has gone over, and takes back the rest.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flows.registry import Registry
from flows.runtime.journal import Journal, Standing, read_journal, remove_journal, write_journal
from flows.runtime.terminal import errors
from mulan_core.errors import UserError
from serving.edited_collection import EditedCollection, Encode
from serving.edits import Edits
from serving.release import Release, check_release
from serving.store import TrackStore
from serving.tracks import ADDED

if TYPE_CHECKING:
    from serving.encoder import Encoder


class Endpoint(Protocol):
    """Where a catalogue is served, if it is."""

    def runs(self) -> bool:
        """Whether there is one now."""

    def version(self) -> str | None:
        """The model version that it answers with, once no deployment is under way; None where none runs."""

    def deploy(self, release: Release) -> str:
        """Have it answer with a release, starting it where none runs; returns its URL."""


@dataclass(frozen=True)
class Live:
    """What is live of a catalogue. One process at a time may change it; see ``release.switching``."""

    registry: Registry
    store: TrackStore
    edits: Edits
    state: Path
    """Folder of the journal."""
    endpoint: Endpoint

    def go_over(self, release: Release, champions: list[str], *, start: bool = False) -> dict[str, Any]:
        """Switch to a release: its collection gets all edits, then the endpoint, the registry and Milvus follow.

        Args:
            release: its model on this machine, its collection built.
            champions: what the registry is to say; see ``Registry.champions``.
            start: the endpoint, where none runs.

        Returns:
            ``url`` of the endpoint that serves it now, null where none runs, and ``edits``; see ``bring_edits``.

        Raises:
            UserError: if something is refused or away. Registry and Milvus are as they were then, unless the endpoint
                has gone over, or they are away: the next command ends it, as the sentence says.
        """
        if not self.store.collections.has(release.collection):
            raise UserError(
                f"the collection {release.collection} of version {release.model_version} is gone; `mulan index --model "
                f"{release.model_version}` builds it anew where the workspace has its data"
            )
        check_release(release, self.store)
        before = Standing(self.registry.champions(), self.store.collections.live_collection())
        journal = Journal.begin(before, Standing(champions, release.collection))
        if journal.after != before:  # else there is nothing to end, whenever this process dies
            write_journal(self.state, journal)
        try:
            deploys = start or self.endpoint.runs()
            edits = self.bring_edits(release, before.collection)
            url = self.endpoint.deploy(release) if deploys else None
            self._name(journal.after)
            if deploys:  # while it was deployed, the old replicas have taken more
                edits = self.bring_edits(release, before.collection)
        except Exception as error:
            self._take_back(journal, error)
            raise
        remove_journal(self.state)
        return {"url": url, "edits": edits}

    def recover(self) -> None:
        """End a switch that a process which died, or failed, has left; a line on stderr says how."""
        journal = read_journal(self.state)
        if journal is None:
            return
        champions = self.registry.champions()
        served = self.endpoint.version()
        champion = champions[-1] if champions else None
        if (served or champion) == journal.after.version:
            self._name(journal.after)
            if self.store.collections.has(str(journal.after.collection)):
                self.bring_edits(self.registry.release(str(journal.after.version)), journal.before.collection)
            who = "the endpoint answers with it" if served else "the registry names it"
            done = f"{who}, so the rest has followed"
        else:
            self._name(journal.before)
            done = "it is taken back"
        remove_journal(self.state)
        errors.print(f"mulan: {journal.words} was cut off; {done}")

    def bring_edits(self, release: Release, before: str | None, *, anew: bool = False) -> dict[str, Any]:
        """Have a release's collection hold what was added over the API, and not what was deleted.

        Args:
            release: its model encodes what was added.
            before: the collection that is live, whose vectors are copied where its model has the same weights.
            anew: encode all of them, whatever the collection has; see ``EditedCollection.apply``.

        Returns:
            ``added`` and ``deleted``, how many tracks; ``superseded``, ids of those that were added and that the
            catalogue has in a newer state; ``left``, ids of those that cannot be in it, since their audio was not kept.
        """
        target, before = release.collection, before if before and self.store.collections.has(before) else None
        same = before is not None and self._weights(before) == self._weights(target) is not None
        edited = EditedCollection(self.store, self.edits, target)
        applied = edited.apply(encode_with(release.model_path), source=before if same and not anew else None, anew=anew)
        # Versions before this one kept no audio: such tracks can go along under the same weights alone.
        there = set(self._without_audio(target))
        missing = [track_id for track_id in self._without_audio(before) if track_id not in there] if before else []
        missing = [track_id for track_id in missing if self.edits.get(track_id) is None]
        hashes = self.store.hashes(missing, collection=target)
        missing = [track_id for track_id in missing if track_id not in hashes]
        if same and before:
            self.store.copy(dict.fromkeys(missing, ADDED), before, target)
            there, missing = there | set(missing), []
        return asdict(applied) | {"added": applied.added + len(there), "left": applied.left + missing}

    def _without_audio(self, collection: str) -> list[str]:
        marked = (pair for page in self.store.scroll(collection, only_added=True) for pair in page)
        return [track_id for track_id, mark in marked if mark == ADDED]

    def _weights(self, collection: str) -> str | None:
        version = self.registry.get(self.store.collections.describe(collection).properties.get("model_version", ""))
        return version.tag("weights") if version else None  # it was deleted since

    def _name(self, standing: Standing) -> None:
        """Have registry and Milvus say what they are to; a collection that is gone by now is live no more."""
        if self.registry.champions() != standing.champions:
            self.registry.name_champions(standing.champions)
        if standing.collection is None or not self.store.collections.has(standing.collection):
            self.store.collections.drop_alias()
        elif self.store.collections.live_collection() != standing.collection:
            self.store.collections.switch_alias(standing.collection)

    def _take_back(self, journal: Journal, error: Exception) -> None:
        """After a failure: registry and Milvus as they were, unless the endpoint has gone over."""
        before, after = journal.before.version, journal.after.version
        try:
            gone_over = before != after and self.endpoint.version() == after
            if not gone_over:
                self._name(journal.before)
                remove_journal(self.state)
                return
            rest = f"the endpoint answers with version {after} by now, and the next command has the rest follow"
        except Exception:  # whatever failed first may have taken this along
            rest = "the next command takes back what was begun"
        if isinstance(error, UserError):
            raise UserError(f"{error}; {rest}") from error


def encode_with(model: str | Path) -> Encode:
    """Encode with a saved model, which is opened when it is first needed."""

    @cache
    def opened() -> Encoder:
        from serving.encoder import Encoder

        return Encoder(model, num_threads=os.cpu_count() or 1)

    def encode(flac: bytes) -> Any:
        return opened().encode_flac(flac)

    return encode
