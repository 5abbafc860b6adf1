"""Studies: intervals against scipy, the correction against simulated studies without a difference, the words."""

import io
import itertools

import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from mulan_core.errors import UserError
from mulan_core.evaluation.plots import study_png
from mulan_core.evaluation.study import Study, in_words, least_difference, mean_interval, spread, to_markdown

GENRE, TITLE = "tagging/genre/roc_auc", "retrieval/title/map"


def trials(values, *, rows=None):
    """Metric -> values_RS as the trials that measured them."""
    shape = next(iter(values.values())).shape
    return [
        {
            "row": (rows or ["aset", "all", "mine"])[r],
            "seed": seed,
            "metrics": {name: float(values_RS[r, seed]) for name, values_RS in values.items()},
            "intervals": {name: [float(values_RS[r, seed]) - 0.02, 0.99] for name, values_RS in values.items()},
        }
        for seed in range(shape[1])
        for r in range(shape[0])
    ]


def test_the_interval_of_a_mean_is_student_s() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.02, size=4)
    wanted = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(wanted, abs=1e-9)
    assert mean_interval(values[:1]) is None
    assert mean_interval(np.array([0.999, 0.9999, 1.0]))[1] == 1.0  # a metric never passes 1


def test_two_rows_are_the_paired_t_test() -> None:
    values_RS = np.random.default_rng(2).normal(0.7, 0.02, size=(2, 5))
    (found,) = Study.of_trials(trials({GENRE: values_RS})).differences()
    wanted = stats.ttest_rel(values_RS[1], values_RS[0]).confidence_interval(0.95)
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert found.value == pytest.approx(float(np.mean(values_RS[1] - values_RS[0])), abs=1e-12)
    assert (found.first, found.second) == ("aset", "all")


def test_more_rows_pool_what_neither_row_nor_seed_explains() -> None:
    values_RS = np.random.default_rng(3).normal(0.7, 0.02, size=(4, 3))
    squares = 0.0
    for r, s in itertools.product(range(4), range(3)):
        squares += (values_RS[r, s] - np.mean(values_RS[r]) - np.mean(values_RS[:, s]) + np.mean(values_RS)) ** 2
    half = stats.t.ppf(1 - 0.05 / 7 / 2, 6) * np.sqrt(squares / 6) * np.sqrt(2 / 3)
    assert least_difference(values_RS, 7) == pytest.approx(half, abs=1e-9)
    # What a seed does to all rows alike is no difference between them.
    assert least_difference(values_RS + np.array([0.1, -0.2, 0.05]), 7) == pytest.approx(half, abs=1e-9)


def test_all_intervals_hold_together() -> None:
    """Of 600 studies without any difference, about 5 % at most claim one; uncorrected it would be about half."""
    rng = np.random.default_rng(4)
    claimed = uncorrected = 0
    for _ in range(600):
        values = {name: rng.normal(0.5, 0.02, (4, 3)) for name in (GENRE, TITLE)}
        values = {name: values_RS + rng.normal(0, 0.1, 3) for name, values_RS in values.items()}
        found = Study.of_trials(trials(values, rows=list("abcd"))).differences()
        assert len(found) == 12
        claimed += any(d.stands for d in found)
        uncorrected += any(abs(d.value) > least_difference(values[d.metric], 1) for d in found)
    assert claimed <= 45  # 30 expected, less for correlated differences; 45 is 2.8 deviations above
    assert uncorrected > 150


def test_a_metric_that_a_run_lacks_is_named_and_not_compared() -> None:
    found = trials({GENRE: np.full((2, 2), 0.5), TITLE: np.full((2, 2), 0.5)})
    del found[-1]["metrics"][TITLE]
    study = Study.of_trials(found)
    assert set(study.values) == {GENRE}
    assert study.missing == (TITLE,)
    assert f"not every run has {TITLE}" in to_markdown(study, "Ablation")


def test_a_run_that_is_missing_is_an_error() -> None:
    with pytest.raises(UserError, match="row all was not trained with seed 1"):
        Study.of_trials(trials({GENRE: np.full((2, 2), 0.5)})[:-1])


def test_the_page_says_in_words_what_stands() -> None:
    noise = np.array([[0.001, -0.001, 0.0], [-0.001, 0.0, 0.001], [0.0, 0.001, -0.001]])
    values = {
        GENRE: np.array([[0.8], [0.9], [0.9]]) + noise,
        TITLE: np.array([[0.5], [0.4], [0.4002]]) + noise,
        "retrieval/title/recall_at_10": noise,  # in no table: not compared
    }
    study = Study.of_trials(trials(values))
    differences = study.differences()
    text = to_markdown(study, "Ablation")
    half = least_difference(values[GENRE], 6)
    assert 0.004 < half < 0.012
    bounds = f"({0.1 - half:.3f} to {0.1 + half:.3f})"
    assert "4 of 6 differences stand." in text
    assert (
        f"- **all (ASET + SF + LF + PL)** against **ASET**: higher in tagging genre ROC-AUC by 0.100 {bounds}; "
        f"lower in retrieval title mAP by 0.100 {bounds}." in text
    )
    assert "- **mine** against **all (ASET + SF + LF + PL)**: no difference stands; the largest, +0.000 in" in text
    assert "Bonferroni's correction all 6 hold together" in text
    assert f"| Playlist retrieval (layout of Table 5) | title mAP | {spread(values[TITLE]):.4f} | " in text
    assert "| ASET | 0.800 (0.798-0.802) | *0.886* |" in text
    assert "In brackets: 95 % t interval of the mean over 3 seeds (0, 1, 2)." in text
    assert {d.metric for d in differences} == {GENRE, TITLE}


def test_equal_rows_do_not_differ() -> None:
    study = Study.of_trials(trials({GENRE: np.full((3, 3), 0.7)}))
    assert not any(d.stands for d in study.differences())


def test_one_seed_claims_nothing_and_shows_the_test_set_s_intervals() -> None:
    study = Study.of_trials(trials({GENRE: np.array([[0.7], [0.9]])}))
    assert study.differences() == []
    assert study.summary()[0]["intervals"] == {GENRE: [pytest.approx(0.68), 0.99]}
    text = to_markdown(study, "Ablation")
    assert "none is claimed: run with --seeds 3" in text
    assert "over the test set (one seed, 0)" in text
    one_row = Study.of_trials(trials({GENRE: np.array([[0.7, 0.8]])}))
    assert in_words(one_row, one_row.differences()) == "There is one row: nothing to compare."


def test_a_catalogue_s_own_facets_are_compared() -> None:
    study = Study.of_trials(
        trials({"tagging/pitch/roc_auc": np.full((2, 1), 0.5), "probe/pitch/roc_auc": np.ones((2, 1))})
    )
    assert [name for _, name, _ in study.columns] == ["pitch", "probe pitch"]


def test_the_picture_has_a_panel_for_each_metric() -> None:
    values_RS = np.random.default_rng(5).normal(0.7, 0.02, size=(3, 3))
    names = [GENRE, TITLE, "retrieval/title/auc", "retrieval/text/map"]
    small, large = (
        image.imread(io.BytesIO(study_png(Study.of_trials(trials(dict.fromkeys(some, values_RS)))) or b""))
        for some in (names[:1], names)
    )
    assert large.shape[0] > 1.5 * small.shape[0]  # a second line of panels
    assert study_png(Study.of_trials(trials({"other": values_RS}))) is None
