"""Shards: Parquet files of prepared clips, 16 kHz mono FLAC bytes with their texts and labels.

A prepared folder holds ``train/``, ``valid/`` and ``test/`` with shards, ``manifest.parquet`` (the
usable tracks without audio), ``quarantine.parquet``, ``counts.json`` and maybe ``playlists.parquet``.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from mulan_core.errors import UserError

MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
PLAYLISTS = "playlists.parquet"
COUNTS = "counts.json"
TEXTS = "texts.parquet"

PREPARED_TEXT = pa.struct([("source", pa.string()), ("text", pa.string()), ("drop", pa.string())])
"""A text with the reason it was dropped; null where it was kept."""


CLIP_FACTS = pa.schema(
    [
        pa.field("num_samples", pa.int64()),
        pa.field("clip_start_s", pa.float64()),
        pa.field("decoder", pa.string()),
        pa.field("channels_cancel", pa.bool_()),
        pa.field("num_clipped", pa.int64()),
    ]
)
"""Of a clip: its length, where in the track it begins, who decoded it, whether its channels cancelled each other, and
how many samples were beyond full scale."""


def shard_schema(manifest: pa.Schema) -> pa.Schema:
    """Columns of the shards made from a manifest of this schema; without ``audio``, of the manifest of usable tracks.

    The manifest's own, with judged texts; then ``media_path``, where the file lies; ``CLIP_FACTS``;
    ``clip_key``, its identity (``clips.clip_key``); and ``audio``, its FLAC bytes.
    """
    judged = manifest.set(manifest.get_field_index("texts"), pa.field("texts", pa.list_(PREPARED_TEXT)))
    # A file's time is no property of its clip: a copied catalogue must give the same shards.
    own = [field for field in judged if field.name not in ("file_mark", "media_path")]
    added = [
        ("media_path", pa.string()),
        *((field.name, field.type) for field in CLIP_FACTS),
        ("clip_key", pa.string()),
        ("audio", pa.binary()),
    ]
    return pa.schema([*own, *(pa.field(name, kind) for name, kind in added)])


def without_audio(schema: pa.Schema) -> pa.Schema:
    """The same columns but the audio."""
    return schema.remove(schema.get_field_index("audio"))


def read_split(prepared: str | Path, split: str, *, columns: list[str] | None = None) -> pa.Table:
    """All clips of one split, in shard order, memory-mapped.

    Raises:
        UserError: if the folder holds no shard of that split.
    """
    return pa.concat_tables(
        pq.read_table(shard, columns=columns, memory_map=True) for shard in shard_paths(prepared, split)
    )


def shard_paths(prepared: str | Path, split: str) -> list[Path]:
    """The shards of one split, in their order.

    Raises:
        UserError: if the folder holds no shard of that split.
    """
    shards = sorted((Path(prepared) / split).glob("shard-*.parquet"))
    if not shards:
        raise UserError(f"{Path(prepared) / split} holds no shard; run `mulan prepare`, or check the manifest's splits")
    return shards


def read_counts(prepared: str | Path) -> dict[str, Any]:
    """What prepare counted: usable and quarantined tracks, texts kept and dropped.

    Raises:
        UserError: if the folder was not made by prepare.
    """
    path = Path(prepared) / COUNTS
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except OSError as error:
        raise UserError(f"{prepared} is not a prepared folder ({COUNTS} is missing); run `mulan prepare`") from error


def encode_flac(wave_T: np.ndarray, sample_rate_hz: int) -> bytes:
    """Mono float32 audio in [-1, 1], as ``decode_audio`` gives it, as 16-bit FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave_T, -1, 1), sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes, *, start: int = 0, frames: int = -1) -> np.ndarray:
    """Samples ``start`` to ``start + frames`` of a shard's clip as float32 (T,); -1 reads to the end."""
    with soundfile.SoundFile(io.BytesIO(data)) as clip:
        clip.seek(start)
        return clip.read(frames, dtype="float32")  # type: ignore[no-any-return]


def sample_rate_hz(data: bytes) -> int:
    """Samples per second of a shard's clip; all clips of a prepared folder have the same."""
    return int(soundfile.info(io.BytesIO(data)).samplerate)


def hash_split(prepared: str | Path, split: str) -> str:
    """Identity of a split: sha256 over its tracks' ids, labels and audio hashes, in order of id.

    Two evaluations may be compared only where this is equal.
    """
    table = pq.read_table(Path(prepared) / MANIFEST, columns=["track_id", "split", "labels", "sha256"])
    rows = sorted((r["track_id"], r["labels"], r["sha256"]) for r in table.to_pylist() if r["split"] == split)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
