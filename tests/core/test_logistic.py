"""Logistic regression of all classes at once against scikit-learn, class by class."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mulan_core.evaluation import logistic
from mulan_core.evaluation.logistic import fit_logistic

STRENGTHS = (10.0, 0.01, 1.0)


def drawn(examples: int, features: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of very different sizes, as embeddings are, and classes from rare to common."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((examples, features)) @ rng.standard_normal((features, features))
    vectors = mixed * np.geomspace(0.01, 1.0, features) @ rng.standard_normal((features, features))
    vectors = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    scores = vectors @ rng.standard_normal((features, classes)) + 3 * rng.standard_normal((examples, classes))
    floors = [np.quantile(scores[:, c], 1 - share) for c, share in enumerate(np.geomspace(0.02, 0.9, classes))]
    return vectors, scores > floors


def reference(vectors: np.ndarray, positives: np.ndarray, strength: float) -> np.ndarray:
    columns = []
    for c in range(positives.shape[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it cannot improve any more
            model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-13, max_iter=500)
            model.fit(vectors, positives[:, c])
        columns.append(np.r_[model.coef_[0], model.intercept_[0]])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(("examples", "features"), [(400, 16), (150, 40)])
def test_weights_are_those_of_scikit_learn(examples: int, features: int) -> None:
    vectors, positives = drawn(examples, features, 5)
    for weights, strength in zip(fit_logistic(vectors, positives, STRENGTHS, device="cpu"), STRENGTHS, strict=True):
        expected = reference(vectors, positives, strength)
        assert np.abs(weights - expected).max() <= 1e-6 * np.abs(expected).max(), strength


def test_blocks_of_classes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, positives = drawn(120, 8, 5)
    whole = fit_logistic(vectors, positives, STRENGTHS, device="cpu")
    monkeypatch.setattr(logistic, "_CELLS", 240)
    for parts, together in zip(fit_logistic(vectors, positives, STRENGTHS, device="cpu"), whole, strict=True):
        np.testing.assert_allclose(parts, together, atol=1e-8)


def test_a_separable_class_and_a_dead_feature_end() -> None:
    vectors, positives = drawn(100, 6, 2)
    vectors[:, 2] = 0.0
    positives[:, 0] = vectors[:, 0] > 0
    for weights, strength in zip(fit_logistic(vectors, positives, (1.0, 1e4), device="cpu"), (1.0, 1e4), strict=True):
        assert np.isfinite(weights).all()
        assert np.abs(weights[2]).max() < 1e-6
        expected = reference(vectors, positives, strength)
        assert np.abs(weights - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same() -> None:
    vectors, positives = drawn(400, 16, 5)
    pairs = (fit_logistic(vectors, positives, STRENGTHS, device=device) for device in ("cpu", "cuda"))
    for on_cpu, on_gpu in zip(*pairs, strict=True):
        np.testing.assert_allclose(on_cpu, on_gpu, atol=1e-7)
