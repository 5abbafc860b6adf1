"""What the endpoint does, without HTTP: search, tag, embed, look up, add and delete under one release.

The model runs in one thread of its own, since several runs at once only take turns on the same cores;
decoding and Milvus have a pool. The event loop stays free to answer probes.

Shape letters: L labels, Q queries, D embedding size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from mulan_core.data.names import why_unwritable
from mulan_core.errors import UserError
from mulan_core.evaluation.tagging import split_label
from serving.calibration import GOOD_MATCH, Kind
from serving.edited_collection import EditedCollection, Heard
from serving.edits import Edits, to_flac
from serving.encoder import Encoder
from serving.errors import ApiError
from serving.filters import TrackFilter
from serving.map import CatalogueMap
from serving.media import is_playable
from serving.metrics import Metrics
from serving.places import Places
from serving.query_statistics import learn_query_statistics
from serving.release import Release, check_release
from serving.searches import BestWindows, Searches
from serving.store import CollectionInfo, Hit, Span, TrackStore
from serving.text_vectors import TextVectors
from serving.timing import Timing
from serving.tracks import Track, track_of

T = TypeVar("T")

CACHED_TEXTS = 4_096


@dataclass(frozen=True)
class Part:
    """One of the things that a search asks for, with its weight."""

    weight: float = 1.0
    text: str | None = None
    track_id: str | None = None
    vector_D: np.ndarray | None = None
    """Of an upload, encoded already."""


@dataclass(frozen=True)
class Query:
    """The parts of a search as one unit vector."""

    vector_D: np.ndarray
    kinds: frozenset[Kind]
    """What it was made of."""
    exclude: frozenset[str] = field(default_factory=frozenset)
    """Tracks that were named, which are no answer."""
    is_off_topic: bool = False
    """Nothing that it asks for is about music; see ``OffTopic``."""


@dataclass(frozen=True)
class Found:
    """A page of hits as the API gives them."""

    hits: list[dict[str, Any]]
    no_good_match: bool | None
    has_more: bool
    """There are tracks after these."""


class Service:
    """One release in memory. Opening it takes seconds and refuses a release that does not fit together.

    Args:
        release: what to serve.
        store: where its collection is.
        edits: what was added to the catalogue and deleted over the API. What a process that died has left undone of it
            is done.
        media_root: folder under which tracks may be played; None plays none.
        max_audio_s: longest audio query, seconds.
        num_threads: of torch.
        use_gpu: encode on the GPU that Ray gave this process.
        text_program: an exported text tower to use instead of the model's.
        metrics: where its work is counted.
        places: where the files lie that were in a home which was moved since the collection was built.
        catalogue: its name, for those who look at it; empty where nobody has given it one.

    Raises:
        UserError: if Milvus is away, or model and collection disagree.
    """

    def __init__(
        self,
        release: Release,
        store: TrackStore,
        *,
        edits: Edits,
        media_root: str | Path | None,
        max_audio_s: float,
        num_threads: int = 1,
        use_gpu: bool = False,
        text_program: str | Path | None = None,
        metrics: Metrics | None = None,
        places: Places | None = None,
        catalogue: str = "",
    ) -> None:
        check_release(release, store)
        self.catalogue = catalogue
        self.here: Callable[[str], str] = places.here if places else str
        self.release, self.media_root = release, Path(media_root).absolute() if media_root else None
        self.metrics = metrics or Metrics()
        self._store, self._max_audio_s = store, max_audio_s
        self._edited = EditedCollection(store, edits, release.collection)
        self._encoder = Encoder(release.model_path, num_threads=num_threads, use_gpu=use_gpu, text_program=text_program)
        self._encoder.warm_up()
        store.collections.load(release.collection)
        self._edited.apply(self._encoder.encode_flac)
        self.collection: CollectionInfo = store.collections.describe(release.collection)
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="io")
        self.encode_texts = TextVectors(
            self._encoder.encode_texts, self._model_thread, size=CACHED_TEXTS, metrics=self.metrics
        )
        self._find = Searches(store, release.collection, self._pool, metrics=self.metrics)
        self._windows: BestWindows | None = None
        if store.windows.count(release.collection):
            self._windows = BestWindows(store, release.collection, self._pool)
        self._map = CatalogueMap(store, release.collection, self.show)
        # Of its own: who comes while it is drawn waits here, and takes no thread from searches.
        self._map_thread = ThreadPoolExecutor(1, thread_name_prefix="map")
        self._label_vectors_LD: np.ndarray | None = None
        self._probe()
        self._statistics = learn_query_statistics(
            self.collection.labels, self._encoder.encode_texts, store, release.collection
        )
        self.metrics.name_release(release)
        self.metrics.index_tracks.set(self.collection.count)

    async def ready(self) -> None:
        """Try everything a search needs.

        Raises:
            UserError: with the reason, if a search would fail now.
        """
        await self._in(self._pool, self._probe)
        await self._in(self._model_thread, self._encoder.encode_texts, ["ready?"])

    def _probe(self) -> None:
        check_release(self.release, self._store)
        query_D = np.eye(1, self._encoder.dim, dtype=np.float32)
        if not self._store.tracks.search(query_D, 1, collection=self.release.collection)[0]:
            raise UserError(f"collection {self.release.collection} is empty; build it anew with `mulan index`")

    async def encode_audio(self, data: bytes, timing: Timing) -> np.ndarray:
        """Unit vector of an upload."""
        with timing.stage("decode"):
            wave = await self._in(self._pool, lambda: self._encoder.decode(data, max_s=self._max_audio_s))
        with timing.stage("encode"):
            return await self._in(self._model_thread, self._encoder.encode_wave, wave)

    async def hear(self, data: bytes, timing: Timing) -> Heard:
        """An upload as a track of the catalogue: encoded from what is kept of it, as any model after this one will."""
        with timing.stage("decode"):
            flac = await self._in(self._pool, lambda: to_flac(data, max_s=self._max_audio_s))
            wave = await self._in(self._pool, self._encoder.decode, flac)
        with timing.stage("encode"):
            return Heard(flac, *await self._in(self._model_thread, self._encoder.encode_windows, wave))

    async def track(self, track_id: str, timing: Timing) -> tuple[Track, np.ndarray]:
        """A track of the catalogue and its vector.

        Raises:
            ApiError: 404 if there is none of that id.
        """
        return (await self._tracks([track_id], timing))[track_id]

    async def has(self, track_id: str, timing: Timing) -> bool:
        """Whether there is a track of this id."""
        return bool(await self._find_tracks([track_id], timing))

    async def _tracks(self, track_ids: list[str], timing: Timing) -> dict[str, tuple[Track, np.ndarray]]:
        tracks = await self._find_tracks(track_ids, timing)
        missing = [track_id for track_id in track_ids if track_id not in tracks]
        if missing:
            raise ApiError(404, f"there is no track {missing[0]}")
        return tracks

    async def _find_tracks(self, track_ids: list[str], timing: Timing) -> dict[str, tuple[Track, np.ndarray]]:
        # An id of control characters is nobody's, and Milvus cannot be asked for it.
        askable = [track_id for track_id in track_ids if not why_unwritable(track_id)]
        if not askable:
            return {}
        with timing.stage("search"):
            return await self._in(
                self._pool, lambda: self._store.tracks.get(askable, collection=self.release.collection)
            )

    async def combine(self, parts: Sequence[Part], timing: Timing) -> Query:
        """The weighted sum of what is asked for, as a unit vector.

        Raises:
            ApiError: 404 for an unknown track; 422 if the parts cancel each other out.
        """
        texts = [part.text for part in parts if part.text is not None]
        ids = list(dict.fromkeys(part.track_id for part in parts if part.track_id is not None))
        tracks = await self._tracks(ids, timing) if ids else {}
        vectors: dict[str, np.ndarray] = {}
        if texts:
            with timing.stage("encode"):
                vectors = dict(zip(texts, await self.encode_texts(texts), strict=True))
        sum_D, kinds = np.zeros(self._encoder.dim), set[Kind]()
        for part in parts:
            if part.text is not None:
                sum_D += part.weight * vectors[part.text]
            elif part.track_id is not None:
                sum_D += part.weight * tracks[part.track_id][1]
            elif part.vector_D is not None:
                sum_D += part.weight * part.vector_D
            kinds.add("audio" if part.text is None else "words")
        norm = float(np.linalg.norm(sum_D))
        if norm < 1e-3:
            raise ApiError(422, "the queries cancel each other out; give them other weights")
        query_D = (sum_D / norm).astype(np.float32)
        if kinds == {"words"} and self._statistics.drift is not None:
            self.metrics.query_drift.set(self._statistics.drift.note(query_D))
        wanted = [vectors[part.text] for part in parts if part.text is not None and part.weight > 0]
        words_alone = len(wanted) == sum(part.weight > 0 for part in parts) > 0
        topic = self._statistics.topic
        off_topic = words_alone and topic is not None and all(topic.is_off(text_D) for text_D in wanted)
        return Query(query_D, frozenset(kinds), frozenset(ids), off_topic)

    async def search(
        self, query: Query, timing: Timing, *, k: int, offset: int = 0, narrow: TrackFilter | None = None
    ) -> Found:
        """The ``k`` best tracks after the first ``offset``."""
        with timing.stage("search"):
            page = await self._find(query.vector_D, k, offset=offset, narrow=narrow, exclude=query.exclude)
        best = self._statistics.calibration.match(page.best, query.kinds) if page.best is not None else 0.0
        no_good_match = query.is_off_topic or (None if best is None else best < GOOD_MATCH)
        if no_good_match:
            self.metrics.no_good_match.inc()
        spans = await self._best_windows(query, page.hits, timing)
        shown = [self._show_hit(hit, query.kinds, spans.get(hit.track.track_id)) for hit in page.hits]
        return Found(shown, no_good_match, page.has_more)

    async def _best_windows(self, query: Query, hits: Sequence[Hit], timing: Timing) -> dict[str, Span]:
        if self._windows is None or not hits:
            return {}
        with timing.stage("search"):
            return await self._windows(query.vector_D, [hit.track.track_id for hit in hits])

    def _show_hit(self, hit: Hit, kinds: frozenset[Kind], span: Span | None) -> dict[str, Any]:
        match = self._statistics.calibration.match(hit.score, kinds)
        return self.show(hit.track) | {
            "score": hit.score,
            "match": None if match is None else round(match, 4),
            "start_s": round(span.start_s, 3) if span else None,
            "end_s": round(span.end_s, 3) if span else None,
        }

    async def tag(
        self, audio_D: np.ndarray, timing: Timing, *, labels: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Labels by their cosine to the audio, best first; the catalogue's labels if none are given."""
        chosen = list(dict.fromkeys(labels)) if labels else list(self.collection.labels)
        if not chosen:
            raise ApiError(422, "the catalogue has no labels; give some to choose from")
        with timing.stage("encode"):
            if labels:
                vectors_LD = await self._encode_labels(chosen)
            else:
                if self._label_vectors_LD is None:
                    self._label_vectors_LD = await self._encode_labels(chosen)
                vectors_LD = self._label_vectors_LD
        scores_L = vectors_LD @ audio_D
        order = np.argsort(-scores_L, kind="stable")
        return [{"label": chosen[i], "score": round(float(scores_L[i]), 6)} for i in order]

    async def _encode_labels(self, labels: Sequence[str]) -> np.ndarray:
        return await self.encode_texts([split_label(label)[1] for label in labels])

    async def add(self, fields: dict[str, Any], heard: Heard, timing: Timing) -> dict[str, Any]:
        """Put a track into the catalogue, in place of one of its id; searches find it at once.

        Returns:
            The track as the API gives it.

        Raises:
            StoreError: if it cannot be written; then everything is as it was.
        """
        with timing.stage("store"):
            row = await self._in(self._pool, self._edited.add, fields, heard)
            await self.count_tracks()
        return self.show(track_of(row))

    async def delete(self, track_id: str, timing: Timing) -> bool:
        """Take a track out of the catalogue; whether it was there. See ``add``."""
        with timing.stage("store"):
            deleted = await self._in(self._pool, self._edited.delete, track_id)
            await self.count_tracks()
        return deleted

    async def count_tracks(self) -> int:
        """Tracks in the collection now."""
        count = await self._in(self._pool, lambda: self._store.collections.count(self.release.collection))
        self.metrics.index_tracks.set(count)
        return count

    async def map(self) -> dict[str, Any]:
        """The catalogue as points of a plane; see ``CatalogueMap.draw``."""
        return await self._in(self._map_thread, self._map.draw)

    def aside(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Do something small in the pool, such as writing a line; nobody needs to wait for it."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def show(self, track: Track) -> dict[str, Any]:
        """A track as the API gives it; its path on this machine stays here."""
        playable = self.root_of(track) is not None
        return {
            "track_id": track.track_id,
            "title": track.title,
            "artist": track.artist,
            "dataset": track.dataset,
            "labels": list(track.labels),
            "audio_url": f"/v1/tracks/{quote(track.track_id, safe='')}/audio" if playable else None,
        }

    def root_of(self, track: Track) -> Path | None:
        """The folder under which a track's file may be played: the media root, or that of added tracks; or None."""
        roots = (self.media_root, self._edited.edits.folder)
        return next((root for root in roots if is_playable(track, root, self.here)), None)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
