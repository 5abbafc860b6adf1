"""The map of the catalogue: what its axes and colours are, and which tracks a large one shows."""

import numpy as np
import pytest
from serving_fixtures import NUM_TRACKS

import serving.map
import serving.pages
from serving.map import CatalogueMap, choose_labels, project_pca


def test_the_axes_are_the_directions_in_which_vectors_differ_most():
    random = np.random.default_rng(0)
    spread_ND = random.normal(size=(200, 16)) * np.array([9, 4, *[0.1] * 14]) + 5
    turn_DD, _ = np.linalg.qr(random.normal(size=(16, 16)))
    points_N2 = project_pca(spread_ND @ turn_DD)
    expected_N2 = spread_ND[:, :2] - spread_ND[:, :2].mean(axis=0)
    for axis in (0, 1):
        assert abs(np.corrcoef(points_N2[:, axis], expected_N2[:, axis])[0, 1]) > 0.98
    assert np.linalg.norm(points_N2, axis=1).max() == pytest.approx(1)
    np.testing.assert_allclose(project_pca(spread_ND @ turn_DD), points_N2)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_catalogues_without_any_difference_are_in_the_middle(count):
    assert project_pca(np.ones((count, 4), np.float32)).tolist() == [[0, 0]] * count


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], (None, [])),
        ([[], []], (None, [None, None])),
        ([["loud"], ["soft", "loud"]], ("", ["loud", "loud"])),
        ([["genre:Jazz", "mood:Calm", "mood:Sad"], ["genre:Pop", "mood:Sad"]], ("genre", ["genre:Jazz", "genre:Pop"])),
        ([["genre:Jazz", "mood:Calm"], ["mood:Sad"], []], ("mood", ["mood:Calm", "mood:Sad", None])),
    ],
)
def test_colours_are_the_facet_that_most_tracks_carry(labels, expected):
    assert choose_labels(labels) == expected


@pytest.mark.slow
def test_a_large_collection_shows_a_sample_that_stays_the_same(store, release, catalogue, monkeypatch):
    def draw():
        drawing = CatalogueMap(
            store, release.collection, lambda track: catalogue.rows[track.track_id] | {"audio_url": 1}
        )
        assert drawing.draw() is drawing.draw(), "drawn once"
        return [(p["track_id"], p["title"]) for p in drawing.draw()["points"]]

    assert len(draw()) == NUM_TRACKS
    monkeypatch.setattr(serving.map, "MAX_POINTS", 5)
    monkeypatch.setattr(serving.pages, "BATCH", 2)
    assert len(set(draw())) == 5 and draw() == draw()
