"""A report made by hand, with awkward texts, and evidence of the same shape."""

from typing import Any

import numpy as np

from mulan_core.evaluation.evidence import Evidence


def make_report() -> dict[str, Any]:
    metrics = {
        "tagging/genre/roc_auc": 0.81,
        "tagging/genre/pr_auc": 0.41,
        "tagging/held_out/genre/roc_auc": 0.61,
        "probe/genre/roc_auc": 0.91,
        "retrieval/title/auc": 0.77,
        "retrieval/title/map": 0.33,
        "triplets/playlist/accuracy": 0.88,
    }
    return {
        "set": {
            "name": "made up",
            "title": "A set <made> & up",
            "split": "test of what is made up",
            "class_list": "two genres",
            "data_hash": "d" * 32,
            "model": {"name": "made by hand", "kind": "MuLan", "weights_hash": "abc", "embedding_dim": 4},
            "skipped_classes": {"mood:Sad music": "no track has it"},
            "hash": "0123456789abcdef" * 4,
            "counts": {"test_tracks": 90, "playlists": 2},
            "protocol": {"templates": ["{} music"], "window_policy": "even", "bootstrap": 200, "seed": 0},
        },
        "metrics": metrics,
        "intervals": {name: [value - 0.05, value + 0.05] for name, value in metrics.items()},
        "chance": dict.fromkeys(metrics, 0.5),
        "per_class": [
            {
                "label": f"genre:{name}",
                "facet": "genre",
                "text": name,
                "tracks": "test",
                "positives": 9,
                "negatives": 81,
                "roc_auc": auc,
                "roc_auc_interval": [auc - 0.1, min(1.0, auc + 0.1)],
                "pr_auc": 0.3,
                "pr_auc_interval": None,
                "chance_pr_auc": 0.12,
                "probe_roc_auc": 0.9,
            }
            for name, auc in (("Jazz", 0.9), ("Drum | <bass>", 0.3))
        ],
        "per_query": [
            {
                "query_set": "title",
                "playlist_id": f"p{i}",
                "query": "night\njazz | slow <script>alert(1)</script>",
                "relevant": 4,
                "auc": 0.8,
                "ap": 0.2 + i / 10,
                "recall_at_10": 0.5,
                "best_rank": 2.5,
                "top": [
                    {"track_id": "t1", "score": 0.5, "relevant": True},
                    {"track_id": "t2", "score": 0.4, "relevant": False},
                ],
            }
            for i in range(2)
        ],
        "notes": ["Class mood:Sad music skipped: no track has it."],
    }


def make_evidence(tracks: int = 90) -> Evidence:
    """Tracks t0, t1, ... in four dimensions; two classes, two title queries, two pairs."""
    generator = np.random.default_rng(7)
    tracks_ND = generator.standard_normal((tracks, 4)).astype(np.float32)
    texts_TD = generator.standard_normal((6, 4)).astype(np.float32)
    positives_NC = np.zeros((tracks, 2), dtype=bool)
    positives_NC[:9, 0] = positives_NC[5:14, 1] = True
    return Evidence(
        track_ids=tuple(f"t{n}" for n in range(tracks)),
        tracks_ND=tracks_ND / np.linalg.norm(tracks_ND, axis=1, keepdims=True),
        classes=("genre:Jazz", "genre:Drum | <bass>"),
        positives_NC=positives_NC,
        held_out_N=np.zeros(tracks, dtype=bool),
        probe_NC=np.zeros((tracks, 0), dtype=np.float32),
        texts=tuple("abcdef"),
        texts_TD=texts_TD / np.linalg.norm(texts_TD, axis=1, keepdims=True),
        class_text_C=np.array([0, 1]),
        query_sets=("title", "title"),
        query_ids=("p0", "p1"),
        query_text_Q=np.array([2, 3]),
        relevant=(np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8])),
        pair_sets=("playlist", "playlist"),
        pair_anchor_P=np.array([2, 3]),
        pair_description_P=np.array([4, 5]),
    )
