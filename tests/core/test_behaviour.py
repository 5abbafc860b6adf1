"""Behaviour, cost and slices as the evaluation measures them, on encoders that behave by construction."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from report_fixtures import make_evidence
from test_suite import CONFIG, catalogue, content_of

from mulan_core.evaluation.behaviour import NOISES, made_clips, measure_behaviour
from mulan_core.evaluation.cost import RUNS, measure_cost
from mulan_core.evaluation.encoder import Encoder
from mulan_core.evaluation.evidence import Evidence
from mulan_core.evaluation.metrics import roc_auc
from mulan_core.evaluation.sets.content import Content, text_queries
from mulan_core.evaluation.suite import evaluate


class Toy(Encoder):
    """Texts and clips go where it is told; everything else is remembered."""

    kind = "toy"
    has_audio = has_text = True
    embedding_dim = 4

    def __init__(self, clip: Any = (0, 0, 0, 1), texts: dict[str, Any] | None = None) -> None:
        super().__init__("toy", "hash")
        self.model = torch.nn.Linear(3, 2)
        self.clip, self.texts, self.heard, self.read = clip, texts or {}, [], []

    def embed_tracks(self, track_ids: Any, waves: Any, *, sampling_rate: int) -> np.ndarray:
        assert sampling_rate == 16_000
        self.heard += list(waves)
        return np.tile(np.array(self.clip, np.float32), (len(track_ids), 1))

    def embed_texts(self, texts: Any) -> np.ndarray:
        self.read.append(list(texts))
        return np.array([self.texts.get(text, (0, 0, 1, 0)) for text in texts], np.float32)


def evidence_of(queries: list[Any], tracks: int = 40) -> Evidence:
    """Tracks along the first axis, ever weaker; queries as given; class 0 on the first ten tracks."""
    evidence = make_evidence(tracks)
    tracks_ND = np.zeros((tracks, 4), np.float32)
    tracks_ND[:, 0] = np.linspace(1, 0.1, tracks)
    tracks_ND[:10, 1] = 1
    return replace(
        evidence,
        tracks_ND=tracks_ND,
        positives_NC=np.arange(tracks)[:, None] < np.array([10, 20]),
        texts=tuple(str(q) for q in range(len(queries))),
        texts_TD=np.array(queries, np.float32),
        query_text_Q=np.arange(len(queries)),
        query_sets=("title",) * len(queries),
    )


def test_clips_among_the_first_hits_are_counted() -> None:
    # The clip scores 1 with the first two queries, 0.5 with the third, 0 with the last.
    evidence = evidence_of([(0.1, 0, 0, 1), (0.2, 0, 0, 1), (1, 0, 0, 0.5), (1, 0, 0, 0)])
    toy = Toy()
    found = measure_behaviour(toy, evidence)
    assert found["silence"] == {"share": 0.5, "chance": 10 / 41, "queries": 4, "clips": 1, "first_hits": 10}
    assert found["noise"]["share"] == 0.5 and found["noise"]["clips"] == NOISES
    assert len(toy.heard) == 1 + NOISES and not toy.heard[0].any()
    assert len({wave.tobytes() for wave in toy.heard}) == 1 + NOISES
    scores = np.array([row @ evidence.tracks_ND.T for row in evidence.texts_TD])
    ninth, tenth, eleventh = np.sort(scores[3])[::-1][[8, 9, 10]]
    for level, expected in ((ninth, 1), (tenth, 1), (eleventh, 0)):
        asked = replace(evidence, query_text_Q=np.array([3, 3]))
        assert measure_behaviour(Toy((level, 0, 0, 0)), asked)["silence"]["share"] == expected


def test_made_clips_are_the_same_at_every_call() -> None:
    one, other = made_clips(), made_clips()
    assert all(np.array_equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True))


def test_a_model_that_understands_negation_and_one_that_does_not() -> None:
    evidence = evidence_of([(1, 0, 0, 0)])
    names = [label.partition(":")[2] for label in evidence.classes]
    plain = dict.fromkeys(names, (0, 1, 0, 0))
    understands = plain | {f"{form} {name}": (0, -1, 0, 0) for name in names for form in ("no", "not")}
    overlooks = plain | {f"{form} {name}": (0, 2, 0, 0) for name in names for form in ("no", "not")}
    for texts, below, direction in ((understands, (1.0, 0.5), 1), (overlooks, (0.0, 0.0), -1)):
        toy = Toy(texts=texts)
        found = measure_behaviour(toy, evidence)["negation"]
        # The first class's ten tracks are all on the axis, of the second class's twenty the first ten.
        assert found["below"] == pytest.approx(np.mean(below))
        has_NC = evidence.positives_NC
        scores_N = -direction * (np.arange(40) < 10).astype(float)
        assert found["roc_auc"] == pytest.approx(np.mean([roc_auc(scores_N, ~has_NC[:, c]) for c in (0, 1)]))
        assert found["classes"] == 2 and len(toy.read) == 1


def test_negated_labels_are_not_negated_again_and_lost_sides_are_left_out() -> None:
    evidence = replace(evidence_of([(1, 0, 0, 0)]), classes=("genre:Jazz", "no vocals"))
    toy = Toy()
    assert measure_behaviour(toy, evidence)["negation"]["classes"] == 1
    assert toy.read == [["Jazz", "no Jazz", "not Jazz"]]
    table = Toy()
    table.model = None
    assert measure_behaviour(table, evidence) == {} and measure_cost(table) == {}
    deaf = Toy()
    deaf.has_audio = False
    assert measure_behaviour(deaf, evidence) == {}
    assert measure_cost(deaf).keys() == {"encode_ms_text", "runs", "parameters", "machine"}
    broken = measure_behaviour(Toy(clip=(np.nan, 0, 0, 0)), evidence)
    assert broken.keys() == {"negation"}


def test_the_cost_is_a_median_of_single_calls() -> None:
    toy = Toy()
    cost = measure_cost(toy)
    assert cost["parameters"] == 3 * 2 + 2 and cost["runs"] == RUNS and "cores" in cost["machine"]
    assert 0 < cost["encode_ms_text"] < 1_000 and 0 < cost["encode_ms_clip"] < 1_000
    assert len(toy.heard) == len(toy.read) == RUNS + 1
    assert {len(wave) for wave in toy.heard} == {160_000} and all(len(texts) == 1 for texts in toy.read)
    assert len({texts[0] for texts in toy.read}) == RUNS + 1


def test_slices_tell_facets_queries_sources_datasets_and_classes_apart() -> None:
    arguments = catalogue()
    embed = arguments.pop("embed_texts")
    ids = arguments["audio"]["test"][0]
    content = content_of(**arguments)
    own = {track_id: [" ".join(label.split(":")[1] for label in arguments["labels"][track_id])] for track_id in ids}
    sources = {of[0]: ("lf" if n % 3 else "sf") for n, of in enumerate(own.values())}
    content = replace(
        content,
        queries={**content.queries, "text": text_queries(own, sources)},
        datasets={track_id: ("big" if n % 4 else "small") for n, track_id in enumerate(ids)},
    )
    report, evidence = evaluate(content, arguments["audio"], embed_texts=embed, config=CONFIG)
    slices = {(row["kind"], row["name"]): row for row in report["slices"]}
    assert slices["facet", "genre"]["value"] == report["metrics"]["tagging/genre/roc_auc"]
    assert slices["query", "title"] | {"value": 0} == {
        "kind": "query", "name": "title", "metric": "auc", "value": 0, "items": 25,
    }  # fmt: skip
    of_lf = [row["auc"] for row in report["per_query"] if row["query_set"] == "text" and sources[row["query"]] == "lf"]
    assert slices["source", "lf"]["value"] == pytest.approx(np.mean(of_lf)) and slices["source", "lf"]["items"] == len(
        of_lf
    )
    assert {name for kind, name in slices if kind == "source"} == {"lf", "sf"}
    rare = min(report["per_class"], key=lambda row: row["positives"])
    assert slices["class", rare["label"]]["items"] == rare["positives"]
    of_small = np.arange(len(ids)) % 4 == 0
    aucs = [
        roc_auc(evidence.class_scores()[of_small, c], evidence.positives_NC[of_small, c])
        for c in range(len(evidence.classes))
    ]
    assert slices["dataset", "small"]["value"] == pytest.approx(np.nanmean(aucs))
    assert slices["dataset", "small"]["items"] + slices["dataset", "big"]["items"] == len(ids)
    alone = replace(content, datasets=dict.fromkeys(ids, "one"))
    of_one, _ = evaluate(alone, arguments["audio"], embed_texts=embed, config=CONFIG, suites=["tagging"])
    assert {row["kind"] for row in of_one["slices"]} == {"facet", "class"}
    assert of_one["set"]["hash"] == report["set"]["hash"], "where tracks come from is no part of the set's identity"


def test_texts_alone_have_no_slices() -> None:
    content = Content(pairs={"x": [("a b", "a b c"), ("d", "d e")]}, all_triplets=True)
    report, _ = evaluate(content, {}, embed_texts=catalogue()["embed_texts"], config=CONFIG, suites=["triplets"])
    assert report["slices"] == []
