"""The rows of a window collection: where each evaluation window lies in its track's file, and its vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.pipeline.embed import open_windows, window_key
from mulan_core.audio.decode import AudioError, find_clip_start_s
from mulan_core.audio.windows import place_windows
from mulan_core.config import PrepareConfig
from mulan_core.data import shards
from mulan_core.processor import MuLanProcessor

ROWS_AT_ONCE = 500


def window_rows(
    prepared: Path, model: str | Path, *, cache: Path, config: PrepareConfig, here: Callable[[str], str] = str
) -> Iterator[list[dict[str, Any]]]:
    """The windows of all tracks, in batches of rows with track_id, place, start_s, end_s and vector.

    A clip is cut from the middle of its file, so where it begins is read from the file's header. Files that are not on
    this machine do not play and have no rows; nor have those whose header states no length.

    Args:
        prepared: the prepared folder, embedded with ``embed_prepared(windows=True)``.
        model: folder of the saved model.
        cache: as it was given to ``embed_prepared``.
        config: how clips were cut.
        here: says where a file of the home is now; see ``Places``.
    """
    heard, window_s = open_windows(model, cache), MuLanProcessor.from_pretrained(model).window_s
    rows: list[dict[str, Any]] = []
    columns = ["track_id", "clip_key", "media_path", "start_s", "duration_s", "num_samples"]
    for track in pq.read_table(prepared / shards.MANIFEST, columns=columns).to_pylist():
        keys: list[str] = []
        while (key := window_key(track["clip_key"], len(keys))) in heard:
            keys.append(key)
        first_s = _clip_start_s(track | {"media_path": here(track["media_path"])}, config)
        if first_s is None:
            continue
        places = place_windows(len(keys), track["num_samples"] / config.sample_rate_hz, window_s)
        for place, ((start_s, end_s), vector) in enumerate(zip(places, heard.get(keys), strict=True)):
            row = {"track_id": track["track_id"], "place": place, "vector": vector}
            rows.append(row | {"start_s": first_s + start_s, "end_s": first_s + end_s})
        if len(rows) >= ROWS_AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows


def _clip_start_s(track: dict[str, Any], config: PrepareConfig) -> float | None:
    segment = {"start_s": track["start_s"], "duration_s": track["duration_s"]}
    try:
        return find_clip_start_s(track["media_path"], clip_s=config.clip_s, **segment)
    except AudioError:
        return None
