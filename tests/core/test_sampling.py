"""Order of data and text draws: a pure function of (seed, step)."""

from collections import Counter

import numpy as np
import pytest

from mulan_core.data.sampling import Sampler, texts_by_source
from mulan_core.errors import UserError

WEIGHTS = {"sf": 2.0, "lf": 2.0, "pl": 1.0, "aset": 1.0}


def sampler(num_tracks=50, seed=3, texts=None, weights=WEIGHTS):
    ids = [f"t{i}" for i in range(num_tracks)]
    every = {source: [f"{source}{i}" for i in range(3)] for source in weights}
    return Sampler(ids, texts or [every] * num_tracks, source_weights=weights, seed=seed)


def drawn(batch):
    return [(d.row, d.source, d.text, float(d.rng.random())) for d in batch]


def test_a_batch_depends_on_seed_and_step_alone():
    walked = sampler()
    for step in range(7):
        walked.batch(step, 8)
    assert drawn(walked.batch(9, 8)) == drawn(sampler().batch(9, 8))
    assert drawn(sampler().batch(9, 8)) != drawn(sampler(seed=4).batch(9, 8))
    assert drawn(sampler().batch(9, 8)) != drawn(sampler().batch(10, 8))


def test_every_track_is_drawn_once_before_any_is_drawn_again():
    rows = [d.row for step in range(50) for d in sampler().batch(step, 7)]
    for epoch in range(len(rows) // 50):
        assert sorted(rows[epoch * 50 : (epoch + 1) * 50]) == list(range(50))


def test_sources_are_drawn_by_their_odds():
    draws = Counter(d.source for step in range(400) for d in sampler().batch(step, 50))
    total = sum(draws.values())
    for source, weight in WEIGHTS.items():
        expected = weight / 6
        # Five standard errors of a binomial share.
        assert abs(draws[source] / total - expected) < 5 * np.sqrt(expected * (1 - expected) / total)


def test_a_missing_source_leaves_its_odds_to_the_others_and_weight_0_is_never_drawn():
    texts = [{"sf": ["a"], "aset": ["b"]}] * 20
    draws = Counter(d.source for s in range(300) for d in sampler(20, texts=texts).batch(s, 20))
    assert draws["sf"] / draws["aset"] == pytest.approx(2.0, rel=0.1)
    only = {**WEIGHTS, "sf": 0.0}
    assert {d.source for d in sampler(20, texts=texts, weights=only).batch(0, 20)} == {"aset"}


def test_tracks_without_text_are_left_out_and_none_at_all_is_an_error():
    texts = [{"sf": ["a"]}, {}, {"sf": ["c"]}]
    assert {d.row for d in sampler(3, texts=texts).batch(0, 4)} == {0, 2}
    with pytest.raises(UserError, match="no training track has a text of the sources sf, lf"):
        sampler(2, texts=[{}, {}])


def test_filtered_and_unfiltered_texts():
    texts = [
        {"source": "sf", "text": "jazz", "drop": None},
        {"source": "sf", "text": "subscribe", "drop": "boilerplate"},
        {"source": "lf", "text": "", "drop": "empty"},
    ]
    assert texts_by_source(texts, use_filtered=True) == {"sf": ["jazz"]}
    assert texts_by_source(texts, use_filtered=False) == {"sf": ["jazz", "subscribe"]}
