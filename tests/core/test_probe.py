"""The linear probe against scikit-learn's pipeline, and how it chooses its strength."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mulan_core.evaluation.probe import linear_probe

STRENGTHS = (0.01, 0.1, 1.0)


def drawn(tracks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(99).standard_normal((12, 3))
    vectors = rng.standard_normal((tracks, 12)) * np.linspace(0.1, 3, 12)
    return vectors, vectors @ direction + 2 * rng.standard_normal((tracks, 3)) > 0.5


def test_probe_equals_scikit_learn_and_takes_the_best_strength() -> None:
    train, valid, (test, test_positives) = drawn(200, 0), drawn(80, 1), drawn(90, 2)
    probe = linear_probe(train, valid, test, strengths=STRENGTHS)
    mean_auc = {}
    reference = {}
    for strength in STRENGTHS:
        models = [
            make_pipeline(
                StandardScaler(), LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=500)
            ).fit(train[0], train[1][:, c])
            for c in range(3)
        ]
        mean_auc[strength] = np.mean(
            [roc_auc_score(valid[1][:, c], model.decision_function(valid[0])) for c, model in enumerate(models)]
        )
        reference[strength] = np.stack([model.decision_function(test) for model in models], axis=1)
    assert probe.valid_auc == pytest.approx(mean_auc, abs=1e-9)
    assert probe.strength == max(mean_auc, key=lambda strength: mean_auc[strength])
    np.testing.assert_allclose(probe.scores, reference[probe.strength], atol=1e-8)
    assert roc_auc_score(test_positives[:, 0], probe.scores[:, 0]) > 0.8


def test_without_validation_the_strength_nearest_to_one_is_used() -> None:
    train, (test, _) = drawn(100, 0), drawn(20, 1)
    probe = linear_probe(train, (test[:0], np.zeros((0, 3), dtype=bool)), test, strengths=(0.01, 0.5, 100.0))
    assert probe.valid_auc == {}
    assert probe.strength == 0.5


def test_a_class_without_training_examples_is_not_scored() -> None:
    (vectors, positives), (test, _) = drawn(100, 0), drawn(20, 1)
    positives[:, 1] = False
    probe = linear_probe((vectors, positives), (vectors, positives), test, strengths=STRENGTHS)
    assert probe.trained.tolist() == [True, False, True]
    assert np.isnan(probe.scores[:, 1]).all()
    assert np.isfinite(probe.scores[:, [0, 2]]).all()


def test_a_dead_dimension_does_no_harm() -> None:
    (vectors, positives), (test, _) = drawn(100, 0), drawn(20, 1)
    vectors[:, 4] = 0.25
    probe = linear_probe((vectors, positives), (vectors, positives), test, strengths=STRENGTHS)
    assert np.isfinite(probe.scores).all()
