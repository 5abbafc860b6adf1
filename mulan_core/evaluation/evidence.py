"""What a report was computed from: vectors, classes, queries and pairs, kept beside it as ``evidence.npz``.

Shape letters: N tracks, C classes, T texts, D embedding size, Q queries, P pairs of anchor and description.

A report holds numbers; whoever compares two models query by query, or draws a curve, needs the scores behind them.
Scores are products of what is stored here, so they are not stored themselves.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulan_core.errors import UserError
from mulan_core.evaluation.sets.content import Content

FILE = "evidence.npz"
"""Name beside ``report.json``."""

_TEXTUAL = ("track_ids", "classes", "texts", "query_sets", "query_ids", "pair_sets")


def _no_indices() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was ranked in one evaluation, on one set, by one model."""

    track_ids: tuple[str, ...] = ()
    """The test tracks; rows of the arrays with N."""
    tracks_ND: NDArray[np.float32]
    """Their unit vectors; (0, D) where the set has no audio."""
    classes: tuple[str, ...] = ()
    """Labels, skipped ones among them."""
    positives_NC: NDArray[np.bool_]
    """Which track has which class."""
    held_out_N: NDArray[np.bool_]
    """Tracks whose combination of attributes was kept out of training."""
    probe_NC: NDArray[np.float32]
    """The probe's decision values; NaN columns for classes it could not learn; (N, 0) where it was not measured."""
    texts: tuple[str, ...] = ()
    """Everything that was embedded, once each; an ensemble of prompts is one row, its prompts joined by `` | ``."""
    texts_TD: NDArray[np.float32]
    """Their unit vectors."""
    class_text_C: NDArray[np.int64] = field(default_factory=_no_indices)
    """The text of each class, as a row of ``texts``; -1 where the model has no vector for it."""
    query_sets: tuple[str, ...] = ()
    """Per query, the set it belongs to: title, description, text, caption."""
    query_ids: tuple[str, ...] = ()
    """Per query, the playlist's or the caption's id; empty where it has none."""
    query_text_Q: NDArray[np.int64] = field(default_factory=_no_indices)
    """The text of each query, as a row of ``texts``."""
    relevant: tuple[NDArray[np.int64], ...] = ()
    """Per query, the tracks that answer it, as rows of ``track_ids``."""
    pair_sets: tuple[str, ...] = ()
    """Per pair, the triplet set it belongs to: playlist, ontology, or a file's name."""
    pair_anchor_P: NDArray[np.int64] = field(default_factory=_no_indices)
    """The anchor (title, label) of each pair, as a row of ``texts``."""
    pair_description_P: NDArray[np.int64] = field(default_factory=_no_indices)
    """Its own description, as a row of ``texts``."""

    def class_scores(self) -> NDArray[np.float32]:
        """Zero-shot scores_NC: cosine of every track and every class's text; NaN where a class has no vector."""
        scores_NC = np.full((len(self.track_ids), len(self.classes)), np.nan, dtype=np.float32)
        known_C = self.class_text_C >= 0
        if known_C.any():
            scores_NC[:, known_C] = self.tracks_ND @ self.texts_TD[self.class_text_C[known_C]].T
        return scores_NC

    def queries_of(self, query_set: str) -> NDArray[np.int64]:
        """Indices of the queries of one set."""
        return np.flatnonzero(np.array(self.query_sets, dtype=object) == query_set)

    def query_scores(self, queries: NDArray[np.int64]) -> NDArray[np.float32]:
        """scores_QN: cosine of some queries with every track; chunk them where N is large."""
        return np.asarray(self.texts_TD[self.query_text_Q[queries]] @ self.tracks_ND.T)

    def pairs_of(self, pair_set: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """anchors_PD and descriptions_PD of one triplet set, for ``triplets.triplet_accuracy``."""
        rows = np.flatnonzero(np.array(self.pair_sets, dtype=object) == pair_set)
        return self.texts_TD[self.pair_anchor_P[rows]], self.texts_TD[self.pair_description_P[rows]]

    def save(self, path: str | Path) -> None:
        """Write one ``.npz``; no pickle, strings as JSON, the relevant tracks as one row with offsets."""
        offsets = np.cumsum([0, *map(len, self.relevant)], dtype=np.int64)
        flat = np.concatenate([_no_indices(), *self.relevant])
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        arrays |= {name: _as_bytes(getattr(self, name)) for name in _TEXTUAL}
        building = Path(path).with_suffix(".building")
        with building.open("wb") as file:
            np.savez(file, **arrays, relevant_flat=flat, relevant_offsets=offsets)
        building.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Evidence:
        """Read what ``save`` wrote.

        Raises:
            UserError: if the file is not there, cut short, or something else.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                fields: dict[str, Any] = dict(stored)
            fields |= {name: tuple(json.loads(fields[name].tobytes())) for name in _TEXTUAL}
            flat, offsets = fields.pop("relevant_flat"), fields.pop("relevant_offsets")
            return cls(**fields, relevant=tuple(np.split(flat, offsets[1:])[:-1]))
        except OSError as error:
            raise UserError(f"cannot read the evidence {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not the evidence of an evaluation: {error}") from error


def gather(
    content: Content,
    test: tuple[Sequence[str], NDArray[np.floating]],
    *,
    classes: Sequence[str],
    positives_NC: NDArray[np.bool_] | None,
    class_vectors: Mapping[str, NDArray[np.floating]],
    prompts: Mapping[str, Sequence[str]],
    texts: Mapping[str, NDArray[np.floating]],
    probe_NC: NDArray[np.floating] | None,
) -> Evidence:
    """Put together what an evaluation had in its hands.

    Args:
        content: the set, reduced to what was measured.
        test: its test tracks and their vectors; none for texts alone.
        classes, positives_NC: labels, and which track has which.
        class_vectors, prompts: label -> its vector, and the texts that it was made of.
        texts: text -> its vector.
        probe_NC: the probe's decision values, if there was one.
    """
    test_ids, test_ND = test
    named = dict(texts) | {" | ".join(prompts[label]): vector for label, vector in class_vectors.items()}
    row_of = {text: t for t, text in enumerate(named)}
    dim = next((len(vector) for vector in named.values()), test_ND.shape[1])
    queries = [(kind, query) for kind, kind_queries in content.queries.items() for query in kind_queries]
    pairs = [(name, pair) for name, set_pairs in content.pairs.items() for pair in set_pairs]
    track = {track_id: n for n, track_id in enumerate(test_ids)}
    apart = set(content.held_out)
    return Evidence(
        track_ids=tuple(test_ids),
        tracks_ND=np.asarray(test_ND, dtype=np.float32).reshape(len(test_ids), test_ND.shape[1] or dim),
        classes=tuple(classes),
        positives_NC=np.zeros((len(test_ids), 0), dtype=bool) if positives_NC is None else positives_NC,
        held_out_N=np.array([track_id in apart for track_id in test_ids], dtype=bool),
        probe_NC=np.zeros((len(test_ids), 0), np.float32) if probe_NC is None else probe_NC.astype(np.float32),
        texts=tuple(named),
        texts_TD=np.array(list(named.values()), dtype=np.float32).reshape(len(named), dim),
        class_text_C=np.array([row_of.get(" | ".join(prompts.get(label, ())), -1) for label in classes], np.int64),
        query_sets=tuple(kind for kind, _ in queries),
        query_ids=tuple(query.id or "" for _, query in queries),
        query_text_Q=np.array([row_of[query.text] for _, query in queries], dtype=np.int64),
        relevant=tuple(np.array([track[track_id] for track_id in query.track_ids], np.int64) for _, query in queries),
        pair_sets=tuple(name for name, _ in pairs),
        pair_anchor_P=np.array([row_of[anchor] for _, (anchor, _) in pairs], dtype=np.int64),
        pair_description_P=np.array([row_of[description] for _, (_, description) in pairs], dtype=np.int64),
    )


def _as_bytes(strings: tuple[str, ...]) -> NDArray[np.uint8]:
    # Numpy's own strings take the longest one's length for each; a caption of 500 words would be paid N times.
    return np.frombuffer(json.dumps(strings, ensure_ascii=False).encode(), dtype=np.uint8)
