"""Order of data and text draws: a pure function of (seed, step)."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from mulan_core.data.sampling import Lanes, Sampler, texts_by_source
from mulan_core.errors import UserError

WEIGHTS = {"sf": 2.0, "lf": 2.0, "pl": 1.0, "aset": 1.0}


def sampler(num_tracks=50, seed=3, texts=None, weights=WEIGHTS, batch_size=8, **options):
    every = {source: [f"{source}{i}" for i in range(3)] for source in weights}
    texts = texts or [every] * num_tracks
    has = {source: np.array([bool(by.get(source)) for by in texts]) for source in weights}
    return Sampler(
        has,
        lambda row: (f"t{row}", texts[row]),
        source_weights=weights,
        batch_size=batch_size,
        seed=seed,
        **options,
    )


def drawn(batch):
    return [(d.row, d.source, d.text, float(d.rng.random())) for d in batch]


@pytest.mark.parametrize("options", [{}, {"num_lanes": 4, "window": 5}, {"by_quota": True}])
def test_a_batch_depends_on_seed_and_step_alone(options):
    walked = sampler(**options)
    for step in range(7):
        walked.batch(step)
    assert drawn(walked.batch(9)) == drawn(sampler(**options).batch(9))
    assert drawn(sampler(**options).batch(9)) != drawn(sampler(seed=4, **options).batch(9))
    assert drawn(sampler(**options).batch(9)) != drawn(sampler(**options).batch(10))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"num_lanes": 3, "window": 5}, {"num_lanes": 4}, {"by_quota": True}])
def test_workers_draw_the_same_global_batch(workers, options):
    share = 8 // workers
    for step in (0, 5, 20):
        parts = [sampler(**options).batch(step, range(r * share, (r + 1) * share)) for r in range(workers)]
        assert [pair for part in parts for pair in drawn(part)] == drawn(sampler(**options).batch(step))


@pytest.mark.parametrize(
    ("count", "num_lanes", "window", "batch_size"),
    [(50, 1, 99, 7), (50, 1, 8, 7), (50, 4, 5, 8), (53, 4, 5, 10), (53, 7, 1, 7), (5, 48, 256, 64), (6, 2, 4, 30)],
)
def test_every_thing_of_a_lane_comes_once_an_epoch(count, num_lanes, window, batch_size):
    lanes = Lanes(count, num_lanes=num_lanes, window=window, batch_size=batch_size, seed=1)
    walks = defaultdict(list)
    for step in range(40):
        for place in range(batch_size):
            walks[lanes.lane_of(place)].append(lanes.at(step, place))
    assert len(walks) == min(num_lanes, count, batch_size)
    covered, orders = set(), set()
    for lane, walk in walks.items():
        (first, after_last), *_ = lanes.members([lane])
        length = after_last - first
        for epoch in range(len(walk) // length):
            part = walk[epoch * length : (epoch + 1) * length]
            assert sorted(part) == list(range(first, after_last))
            orders.add(tuple(part))
            # A window is walked to its end before the next is begun: these are the only rows in memory.
            windows = [(thing - first) // window for thing in part]
            assert len([1 for before, after in pairwise(windows) if before != after]) == (length - 1) // window
        covered |= set(range(first, after_last))
    assert covered == set(range(count))
    assert len(orders) > 1, "every epoch has an order of its own"


def test_lanes_have_equal_shares_of_things_and_batches():
    lanes = Lanes(1003, num_lanes=6, window=32, batch_size=20, seed=0)
    lengths = [last - first for first, last in lanes.members(range(6))]
    assert max(lengths) - min(lengths) == 1
    shares = Counter(map(lanes.lane_of, range(20)))
    assert set(shares.values()) == {3, 4}


def test_sources_are_drawn_by_their_odds():
    draws = Counter(d.source for step in range(400) for d in sampler(batch_size=50).batch(step))
    total = sum(draws.values())
    for source, weight in WEIGHTS.items():
        expected = weight / 6
        # Five standard errors of a binomial share.
        assert abs(draws[source] / total - expected) < 5 * np.sqrt(expected * (1 - expected) / total)


def test_by_quota_every_batch_holds_the_odds():
    for step in range(20):
        draws = Counter(d.source for d in sampler(batch_size=24, by_quota=True).batch(step))
        assert draws == {"sf": 8, "lf": 8, "pl": 4, "aset": 4}
        draws = Counter(d.source for d in sampler(batch_size=25, by_quota=True).batch(step))
        assert all(abs(draws[source] - 25 * weight / 6) <= 1 for source, weight in WEIGHTS.items())


def test_a_quota_is_filled_by_the_tracks_that_have_the_source():
    """A third has SF alone: the batch still holds the odds, the other tracks leave SF to them."""
    texts = [{"sf": ["a"]} if i % 3 == 0 else {s: [s] for s in WEIGHTS} for i in range(48)]
    for step in range(10):
        chosen = sampler(48, texts=texts, batch_size=48, by_quota=True)
        draws = chosen.batch(step)
        assert all(d.source in texts[d.row] for d in draws)
        assert Counter(d.source for d in draws) == {"sf": 16, "lf": 16, "pl": 8, "aset": 8}


def test_a_quota_that_no_track_can_fill_goes_to_the_others():
    texts = [{"sf": ["a"], "aset": ["b"]}] * 60
    draws = Counter(d.source for d in sampler(60, texts=texts, batch_size=60, by_quota=True).batch(0))
    assert draws == {"sf": 40, "aset": 20}


def test_a_missing_source_leaves_its_odds_to_the_others_and_weight_0_is_never_drawn():
    texts = [{"sf": ["a"], "aset": ["b"]}] * 20
    draws = Counter(d.source for s in range(300) for d in sampler(20, texts=texts, batch_size=20).batch(s))
    assert draws["sf"] / draws["aset"] == pytest.approx(2.0, rel=0.1)
    only = {**WEIGHTS, "sf": 0.0}
    assert {d.source for d in sampler(20, texts=texts, weights=only, batch_size=20).batch(0)} == {"aset"}


def test_tracks_without_text_are_left_out_and_none_at_all_is_an_error():
    texts = [{"sf": ["a"]}, {}, {"sf": ["c"]}]
    assert {d.row for d in sampler(3, texts=texts, batch_size=4).batch(0)} == {0, 2}
    with pytest.raises(UserError, match="no training track has a text of the sources aset, lf, pl, sf"):
        sampler(2, texts=[{}, {}])


def test_filtered_and_unfiltered_texts():
    texts = [
        {"source": "sf", "text": "jazz", "drop": None},
        {"source": "sf", "text": "subscribe", "drop": "boilerplate"},
        {"source": "lf", "text": "", "drop": "empty"},
    ]
    assert texts_by_source(texts, use_filtered=True) == {"sf": ["jazz"]}
    assert texts_by_source(texts, use_filtered=False) == {"sf": ["jazz", "subscribe"]}
