"""What the endpoint does, without HTTP: search, tag, embed and look up under one release.

The model runs in one thread of its own, since several runs at once only take turns on the same cores;
decoding and Milvus have a pool. The event loop stays free to answer probes.

Shape letters: L labels, D embedding size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from mulan_core.errors import UserError
from serving.encoder import Encoder
from serving.errors import ApiError
from serving.filters import TrackFilter
from serving.media import is_playable
from serving.release import Release, check_release
from serving.store import CollectionInfo, Hit, TrackStore
from serving.tracks import Track

T = TypeVar("T")

NEGATIVE_WEIGHT = 0.5
"""Share of the negative text's vector that is taken from the query's; at 1 the query itself would drown."""


@dataclass
class Timing:
    """Milliseconds that each stage of one request took."""

    started: float = field(default_factory=time.perf_counter)
    stages_ms: dict[str, float] = field(default_factory=lambda: {"encode": 0.0, "search": 0.0})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - started) * 1000

    def finish(self) -> dict[str, float]:
        """All stages and the total, rounded to microseconds."""
        total = (time.perf_counter() - self.started) * 1000
        return {name: round(ms, 3) for name, ms in (self.stages_ms | {"total": total}).items()}


class Service:
    """One release in memory. Opening it takes seconds and refuses a release that does not fit together.

    Args:
        release: what to serve.
        store: where its collection is.
        media_root: folder under which tracks may be played; None plays none.
        max_audio_s: longest audio query, seconds.
        num_threads: of torch.

    Raises:
        UserError: if Milvus is away, or model and collection disagree.
    """

    def __init__(
        self,
        release: Release,
        store: TrackStore,
        *,
        media_root: str | Path | None,
        max_audio_s: float,
        num_threads: int = 1,
    ) -> None:
        check_release(release, store)
        self.release, self.media_root = release, Path(media_root).absolute() if media_root else None
        self._store, self._max_audio_s = store, max_audio_s
        self._encoder = Encoder(release.model_path, num_threads=num_threads)
        self._encoder.warm_up()
        store.load(release.collection)
        self.collection: CollectionInfo = store.describe(release.collection)
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="io")
        self._label_vectors_LD: np.ndarray | None = None
        self._probe()

    async def ready(self) -> None:
        """Try everything a search needs.

        Raises:
            UserError: with the reason, if a search would fail now.
        """
        await self._in(self._pool, self._probe)
        await self.encode_texts(["ready?"])

    def _probe(self) -> None:
        check_release(self.release, self._store)
        query_D = np.eye(1, self._encoder.dim, dtype=np.float32)
        if not self._store.search(query_D, 1, collection=self.release.collection)[0]:
            raise UserError(f"collection {self.release.collection} is empty; build it anew with `mulan index`")

    async def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts."""
        return await self._in(self._model_thread, self._encoder.encode_texts, texts)

    async def encode_audio(self, data: bytes, timing: Timing) -> np.ndarray:
        """Unit vector of an upload."""
        with timing.stage("decode"):
            wave = await self._in(self._pool, lambda: self._encoder.decode(data, max_s=self._max_audio_s))
        with timing.stage("encode"):
            return await self._in(self._model_thread, self._encoder.encode_wave, wave)

    async def track(self, track_id: str, timing: Timing) -> tuple[Track, np.ndarray]:
        """A track of the catalogue and its vector.

        Raises:
            ApiError: 404 if there is none of that id.
        """
        with timing.stage("search"):
            found = await self._in(self._pool, lambda: self._store.get([track_id], collection=self.release.collection))
        if track_id not in found:
            raise ApiError(404, f"there is no track {track_id}")
        return found[track_id]

    async def search(
        self,
        query_D: np.ndarray,
        timing: Timing,
        *,
        k: int,
        negative_text: str | None = None,
        narrow: TrackFilter | None = None,
        exclude: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Hits as the API gives them."""
        if negative_text is not None:
            with timing.stage("encode"):
                negative_D = (await self.encode_texts([negative_text]))[0]
            query_D = query_D - NEGATIVE_WEIGHT * negative_D
            query_D = query_D / max(float(np.linalg.norm(query_D)), 1e-6)
        with timing.stage("search"):
            found: list[list[Hit]] = await self._in(
                self._pool,
                lambda: self._store.search(
                    query_D[None], k, collection=self.release.collection, narrow=narrow, exclude=exclude
                ),
            )
        return [self.show(hit.track) | {"score": round(hit.score, 6)} for hit in found[0]]

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
        # "genre:Reggae" is read as "Reggae", as in evaluation
        return await self.encode_texts([label.partition(":")[2] or label for label in labels])

    def show(self, track: Track) -> dict[str, Any]:
        """A track as the API gives it; its path on this machine stays here."""
        playable = is_playable(track, self.media_root)
        return {
            "track_id": track.track_id,
            "title": track.title,
            "artist": track.artist,
            "dataset": track.dataset,
            "labels": list(track.labels),
            "audio_url": f"/v1/tracks/{quote(track.track_id, safe='')}/audio" if playable else None,
        }

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
