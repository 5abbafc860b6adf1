"""The evidence beside a report: it goes to a file and back, and the report can be computed again from it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_suite import CONFIG, catalogue, evaluate_both

from mulan_core.errors import UserError
from mulan_core.evaluation.evidence import FILE, Evidence
from mulan_core.evaluation.metrics import average_precision, ranking_metrics, roc_auc
from mulan_core.evaluation.triplets import triplet_accuracy


def equal(one: Evidence, other: Evidence) -> bool:
    for field in dataclasses.fields(Evidence):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "relevant":
            same = len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))
        elif isinstance(mine, np.ndarray):
            floats = mine.dtype.kind == "f"
            same = mine.dtype == theirs.dtype and np.array_equal(mine, theirs, equal_nan=floats)
        else:
            same = mine == theirs
        if not same:
            return False
    return True


def test_the_report_follows_from_the_evidence_after_a_round_trip(tmp_path: Path) -> None:
    arguments = catalogue()
    arguments["labels"] = dict(arguments["labels"])
    arguments["labels"][arguments["audio"]["test"][0][0]] = ["genre:Nur im Test, ünique"]  # the probe cannot learn it
    report, made = evaluate_both(**arguments, held_out=set(arguments["audio"]["test"][0][::4]), config=CONFIG)
    made.save(tmp_path / FILE)
    evidence = Evidence.load(tmp_path / FILE)
    assert equal(made, evidence)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]

    scores_NC = evidence.class_scores()
    assert np.isnan(evidence.probe_NC).all(axis=0).sum() == 1
    for row in report["per_class"]:
        kept = evidence.held_out_N if row["tracks"] == "held_out" else np.ones(len(scores_NC), dtype=bool)
        column = evidence.classes.index(row["label"])
        positives_N = evidence.positives_NC[kept, column]
        assert row["roc_auc"] == pytest.approx(roc_auc(scores_NC[kept, column], positives_N), abs=1e-9)
        if "probe_pr_auc" in row:
            expected = average_precision(evidence.probe_NC[:, column], positives_N)
            assert row["probe_pr_auc"] == pytest.approx(expected, abs=1e-6)  # kept in single precision
    queries = evidence.queries_of("description")
    vectors_QD = evidence.texts_TD[evidence.query_text_Q[queries]]
    ranking = ranking_metrics(vectors_QD, evidence.tracks_ND, [evidence.relevant[q] for q in queries])
    assert report["metrics"]["retrieval/description/map"] == pytest.approx(np.nanmean(ranking.ap), abs=1e-9)
    assert evidence.query_scores(queries).shape == (25, 180)
    assert {evidence.query_ids[q] for q in queries} == {f"p{p}" for p in range(25)}
    assert report["metrics"]["triplets/playlist/accuracy"] == triplet_accuracy(*evidence.pairs_of("playlist")).accuracy


def test_a_set_without_tracks_or_queries_goes_to_a_file_and_back(tmp_path: Path) -> None:
    bare = Evidence(
        tracks_ND=np.zeros((0, 8), np.float32),
        positives_NC=np.zeros((0, 0), bool),
        held_out_N=np.zeros(0, bool),
        probe_NC=np.zeros((0, 0), np.float32),
        texts=("a", "b"),
        texts_TD=np.eye(2, 8, dtype=np.float32),
        pair_sets=("ontology",),
        pair_anchor_P=np.array([0]),
        pair_description_P=np.array([1]),
    )
    bare.save(tmp_path / FILE)
    loaded = Evidence.load(tmp_path / FILE)
    assert equal(bare, loaded)
    assert loaded.class_scores().shape == (0, 0)
    assert loaded.pairs_of("ontology")[1].tolist() == [np.eye(2, 8)[1].tolist()]


def test_what_is_no_evidence_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the evidence"):
        Evidence.load(tmp_path / "nothing.npz")
    for name, data in {"text.npz": b"not a zip", "cut.npz": b"PK\x03\x04"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="is not the evidence"):
            Evidence.load(tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="is not the evidence"):
        Evidence.load(tmp_path / "other.npz")
