"""Vectors that another program made, as an encoder: how a model that does not run here is measured.

``.npz`` holds ``track_ids`` (N,) with ``tracks_ND``, or ``texts`` (T,) with ``texts_TD``, or all four; the names are
those of ``evidence.npz`` (which keeps its strings as JSON), so that file can be measured again. ``.npy`` holds one
matrix; what its rows are stands in ``<name>.tracks.txt`` or ``<name>.texts.txt`` beside it, a track id or text a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mulan_core.errors import UserError
from mulan_core.evaluation.encoder import Encoder

_SIDES = {"track": ("track_ids", "tracks_ND"), "text": ("texts", "texts_TD")}


class PrecomputedEncoder(Encoder):
    """Looks vectors up by track id and by text; they are brought to unit length.

    Raises:
        UserError: if the file cannot be read, or its vectors do not fit their names or each other.
    """

    kind = "precomputed vectors"

    def __init__(self, name: str, weights_hash: str) -> None:
        super().__init__(name, weights_hash)
        arrays = _read(Path(name))
        self._rows: dict[str, dict[str, int]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        for side, (names_key, vectors_key) in _SIDES.items():
            if (names_key in arrays) != (vectors_key in arrays):
                raise UserError(f"{name} has one of {names_key} and {vectors_key} without the other")
            if names_key in arrays:
                names, vectors_ND = arrays[names_key], arrays[vectors_key]
                self._vectors[side] = _unit(name, vectors_key, vectors_ND, len(names))
                self._rows[side] = {str(item): row for row, item in enumerate(names)}
                if len(self._rows[side]) != len(names):
                    raise UserError(f"{name}: {names_key} lists one of them twice; every name needs one vector")
        sizes = {vectors_ND.shape[1] for vectors_ND in self._vectors.values()}
        if not sizes:
            raise UserError(f"{name} holds no vectors: it needs track_ids with tracks_ND, or texts with texts_TD")
        if len(sizes) > 1:
            raise UserError(f"{name}: vectors of tracks and of texts differ in length, {' and '.join(map(str, sizes))}")
        self.embedding_dim = sizes.pop()
        self.has_audio, self.has_text = "track" in self._rows, "text" in self._rows

    def embed_tracks(self, track_ids: Sequence[str], waves: Iterable[np.ndarray], *, sampling_rate: int) -> np.ndarray:
        """See ``Encoder``; ``waves`` is not read."""
        if not self.has_audio:
            return super().embed_tracks(track_ids, waves, sampling_rate=sampling_rate)
        return self._look_up("track", track_ids)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See ``Encoder``."""
        return self._look_up("text", texts) if self.has_text else super().embed_texts(texts)

    def unknown_texts(self, texts: Sequence[str]) -> list[str]:
        """See ``Encoder``."""
        return [text for text in texts if text not in self._rows.get("text", {})]

    def _look_up(self, side: str, names: Sequence[str]) -> np.ndarray:
        rows = self._rows[side]
        unknown = [name for name in names if name not in rows]
        if unknown:
            raise UserError(
                f"{self.name} has no vector for {len(unknown)} of {len(names)} {side}s, first {unknown[0]!r}: add them"
            )
        return self._vectors[side][[rows[name] for name in names]]


def _read(path: Path) -> dict[str, Any]:
    """Arrays by the names of ``.npz``."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with loaded:
                return {key: _names(loaded[key]) for pair in _SIDES.values() for key in pair if key in loaded}
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).split(".")[0]
        if "allow_pickle" in str(error):
            reason = "it holds Python objects; save names as np.array(names, dtype=str)"
        raise UserError(f"cannot read the vectors in {path}: {reason}") from error
    name_files = {side: path.with_name(f"{path.stem}.{side}s.txt") for side in _SIDES}
    beside = {side: file for side, file in name_files.items() if file.is_file()}
    if len(beside) != 1:
        wanted = " or ".join(file.name for file in name_files.values())
        raise UserError(f"{path} needs exactly one of {wanted} beside it, a line a row")
    ((side, file),) = beside.items()
    names_key, vectors_key = _SIDES[side]
    return {names_key: file.read_text(encoding="utf-8").splitlines(), vectors_key: loaded}


def _names(array: np.ndarray) -> Any:
    return json.loads(array.tobytes()) if array.dtype == np.uint8 else array


def _unit(name: str, key: str, vectors_ND: np.ndarray, count: int) -> np.ndarray:
    if vectors_ND.ndim != 2 or len(vectors_ND) != count or not np.issubdtype(vectors_ND.dtype, np.floating):
        raise UserError(
            f"{name}: {key} is {vectors_ND.dtype} {vectors_ND.shape}; it must be floats, one row for each of {count}"
        )
    lengths_N = np.linalg.norm(vectors_ND.astype(np.float64), axis=1)
    bad = ~np.isfinite(lengths_N) | (lengths_N == 0)
    if bad.any():
        raise UserError(f"{name}: row {int(np.argmax(bad))} of {key} is zero or not finite")
    return (vectors_ND / lengths_N[:, None]).astype(np.float32)
